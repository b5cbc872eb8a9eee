"""Make the committed evidence anew, all or a part (``make evidence``), or one quick piece as a check (``make test``).

A finished piece is kept in ``build/<collection>/evidence/``, so an interrupted run continues there and repeats nothing.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial

from helpers.collection.collection import Collection, open_collection
from helpers.store.evidence import Id, Piece, Row, as_row, display_path, fault, read_cells, read_evidence, write_row
from helpers.store.files import DATA, ROOT, WorkbookError, exit_code, fingerprint
from helpers.training.blends import text_pieces
from helpers.training.experiments import (
    EncoderBench,
    RerankerBench,
    encoder_pieces,
    reranker_pieces,
    shared_key,
    table_file,
)
from helpers.training.pair_evidence import check_pairs, make_pairs

PAIRS = "pairs"  # the name of the cross-encoder's scores beside those of the tables
Say = Callable[[str], None]


def all_pieces(collection: Collection) -> list[Piece]:
    """Every row of every experiment as a piece of evidence; listing them encodes and trains nothing."""
    shared = shared_key(collection)
    encoders = cache(lambda: EncoderBench(collection))
    rerankers = cache(lambda: RerankerBench(encoders()))
    tunings = [*encoder_pieces(collection, shared, encoders), *reranker_pieces(collection, shared, rerankers)]
    return [*tunings, *text_pieces(collection)]


def picked(pieces: Sequence[Piece], only: str) -> list[Piece]:
    """The pieces that ``only`` names, all if it is empty.

    ``only`` is a table (``recipes``), or a table and a part of a name in it (``recipes/width``); a name that is matched
    exactly goes before names that contain it. Raises WorkbookError when nothing matches.
    """
    table, _, part = only.partition("/")
    of_table = [piece for piece in pieces if table in ("", piece.table)]
    matching = [p for p in of_table if part == p.name] or [p for p in of_table if part in p.name]
    if not matching:
        tables = ", ".join(dict.fromkeys(piece.table for piece in pieces))
        raise WorkbookError(
            f"There is no evidence {only!r}: name a table ({tables}), or a part of a name in it as in recipes/width."
        )
    return matching


def expected(pieces: Sequence[Piece], table: str) -> dict[Id, str]:
    """{(name, seed): key} of all rows that a table should have."""
    return {(piece.name, piece.seed): piece.key for piece in pieces if piece.table == table}


def find_row(rows: Sequence[Row], piece: Piece) -> Row:
    """The row among ``rows`` that belongs to the piece; an empty row when it is not there."""
    name, seed = piece.name, str(piece.seed)
    return next((row for row in rows if (row.get("name"), row.get("seed")) == (name, seed)), {})


def make_row(piece: Piece) -> Row:
    """Make a piece now, which takes minutes, and return its row."""
    return as_row({"name": piece.name, "seed": piece.seed, **piece.make()}, piece.key)


def make(collection: Collection, pieces: Sequence[Piece], only: str = "", say: Say = print) -> None:
    """Make the pieces that ``only`` picks, write them into the tables, and print one line for each.

    A piece that was made before under the same key is taken from the build folder instead of being made again.
    """
    for piece in picked(pieces, only):
        keys = expected(pieces, piece.table)
        table, kept = table_file(piece.table, collection), collection.build / "evidence" / f"{piece.table}.csv"
        before, row, took = find_row(read_cells(table), piece), find_row(read_cells(kept), piece), "kept"
        if fault(row, keys):
            began = time.perf_counter()
            row = make_row(piece)
            took = f"{time.perf_counter() - began:.0f} s"
            write_row(kept, row, keys)
        write_row(table, row, keys)
        column = piece.measured[0]
        say(f"{piece!s:<70} {took:>8}  {column} {before.get(column, 'none')} before, {row.get(column, 'none')} now")


def check(collection: Collection, pieces: Sequence[Piece], commit: str, say: Say = print) -> None:
    """Check that all committed rows are valid, then make one quick piece again and compare; the tables stay unchanged.

    ``commit`` decides which quick piece it is. Raises WorkbookError for a row that is not valid, and when a measured
    column of the new row differs from the committed one by more than the piece's tolerance.
    """
    committed = {}
    for table in dict.fromkeys(piece.table for piece in pieces):
        read_evidence(table_file(table, collection), expected(pieces, table), f"make evidence ONLY={table}")
        committed[table] = read_cells(table_file(table, collection))
    quick = [piece for piece in pieces if piece.quick and find_row(committed[piece.table], piece)]
    if not quick:
        raise WorkbookError("No committed evidence can be made again in minutes: run `make evidence` and commit it.")
    piece = quick[int(fingerprint(commit), 16) % len(quick)]
    old, began = find_row(committed[piece.table], piece), time.perf_counter()
    new = make_row(piece)
    column, took, file = piece.measured[0], time.perf_counter() - began, table_file(piece.table, collection)
    values = f"{column} {old.get(column, 'none')} committed, {new.get(column, 'none')} now"
    say(f"{piece}, made again in {took:.0f} s: {values} (may differ by {piece.tolerance})")
    for column in piece.measured:
        a, b = (float(row.get(column, "nan")) for row in (old, new))
        if not abs(a - b) <= piece.tolerance:  # a value that is missing is too far as well
            raise WorkbookError(
                f"{piece}: {column} is {b:.5f} when made again and {a:.5f} in {display_path(file)}, more than "
                f"{piece.tolerance} apart; find what has changed, "
                f"or make the table anew with `make evidence ONLY={piece.table}`."
            )


def head() -> str:
    """The hash of the commit that is checked out; where there is no git, a fingerprint of the data files."""
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        return asked.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        files = sorted(file for file in DATA.rglob("*") if file.is_file())
        return fingerprint(*(part for f in files for part in (f.relative_to(DATA).as_posix(), f.read_bytes())))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code of ``exit_code``."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make the evidence anew, or go on with it (an hour or two)")
    making.add_argument(
        "--only", default="", help="a table, a table and a part of a row's name as in recipes/width, or pairs"
    )
    checking = commands.add_parser("check", help="make one quick piece again and compare it with the committed one")
    checking.add_argument(
        "--commit", default="", help="what chooses the piece; by default the commit that is checked out"
    )
    chosen = parser.parse_args(arguments)
    say = partial(print, flush=True)

    def command() -> None:
        collection = open_collection() if chosen.command == "make" else open_collection("pydocs")
        pieces = all_pieces(collection)
        if chosen.command == "check":
            check(collection, pieces, chosen.commit or head(), say)
            check_pairs(collection, chosen.commit or head(), say)
            return
        if chosen.only != PAIRS:
            make(collection, pieces, chosen.only, say)
        if chosen.only in ("", PAIRS):
            make_pairs(collection, say)

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
