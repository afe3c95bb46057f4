# Every chore has one name; `make help` lists them.
