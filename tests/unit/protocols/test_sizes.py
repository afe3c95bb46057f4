import pytest

from service.protocols.sizes import estimate_rows


@pytest.mark.parametrize(
    ("body", "columns", "rows"),
    [
        (b'{"data":{"ndarray":[[1,2]]}}', 2, 1),
        (b'{"data":{"tensor":{"shape":[3,2],"values":[1,2,3,4,5,6]}}}', 2, 4),
        (b"[" + b"[0.1,0.2]," * 99_999 + b"[0.1,0.2]]", 2, 100_000),
        (bytes(8 * 2 * 1000), 2, 401),  # binary numbers have no commas
        (b"", 4, 1),
    ],
)
def test_rows_are_estimated_from_the_body(body, columns, rows):
    assert estimate_rows(body, columns) == pytest.approx(rows, rel=0.01)


@pytest.mark.parametrize("columns", [10, 100, 4000])
def test_rows_of_a_wide_model_count_by_their_cells(columns):
    row = b"[" + b",".join([b"0.25"] * columns) + b"]"
    body = b"[" + b",".join([row] * (200_000 // columns)) + b"]"
    assert estimate_rows(body, columns) == pytest.approx(20_000, rel=0.01)


@pytest.mark.parametrize(
    ("datatypes", "size"),
    [(b'"FP64"', 8), (b'"FP64","INT8"', 1), (b'"BOOL","INT32"', 1), (b'"FP16"', 2), (b"", 4)],
)
def test_rows_of_binary_tensors_are_estimated_from_their_size(datatypes, size):
    body = datatypes.ljust(8 * 2 * 1000)
    assert estimate_rows(body, 2, binary=True) == 8 * 1000 // size + 1
