import os
import re
from concurrent.futures import ThreadPoolExecutor

from service.web.ids import new_id


def test_ids_are_never_given_twice_whatever_the_thread():
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id(), range(20_000)))
    assert len(set(ids)) == 20_000
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_a_forked_process_gives_ids_of_its_own():
    new_id()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, " ".join(new_id() for _ in range(300)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 2**16).decode().split()
    mine = {new_id() for _ in range(300)}
    assert len(theirs) == 300
    assert mine.isdisjoint(theirs)
