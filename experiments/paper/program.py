"""The command of every table: trains what is missing, prints ours beside the paper's.

    --scale=test|quick|paper  the variants of the config files: seconds a row, minutes a
                              row on two CPU cores, the paper's size
    --only=ROW,ROW            keys of rows; others are left out
    --data=DATA,DATA          some of the table's data sets
    --seeds=N                 trainings of each row, with intervals
    --steps=N                 of each training, instead of the variant's
    --path=FILES              real files of the data set; needs one --data
    --set FIELD=VALUE         another change of the config, such as
                              `data.train_until=1979-12`
    --costs                   parameters and GFLOPs beside the paper's scores; nothing
                              is trained
    --out=FOLDER              trainings, results and tables (default: runs/tables)

A row that is done is not trained again, and an interrupted one resumes; tables share
the trainings that they have in common. Results are kept in
OUT/SCALE/DATA/ROW/seed-N/result.json, the table in OUT/SCALE/TABLE.md.
"""

import argparse
import ast
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from earthformer_jax.settings import ConfigError
from paper import intervals, render
from paper.costs import costs_of, paper_model
from paper.runs import SCALES, Mismatch, config_of, folder_of, trained
from paper.table import SIZES, Table


def parser_of(table: Table, doc: str | None) -> argparse.ArgumentParser:
    """The command line of a table."""
    parser = argparse.ArgumentParser(
        description=doc,
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument("--only", default=",".join(table.rows))
    parser.add_argument("--data", default=",".join(table.data))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--path", default="")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/tables")
    return parser


def main(table: Table, doc: str | None, arguments: Sequence[str] | None = None) -> int:
    """Runs the command of a table.

    Args:
        table: rows, columns and the paper's numbers.
        doc: of the script, for --help.
        arguments: of the command line; None: those of the process.

    Returns:
        0; 1 if a training was interrupted, which the same command resumes.
    """
    parser = parser_of(table, doc)
    a = parser.parse_args(arguments)
    rows = chosen(parser, "only", a.only, table.rows)
    data_sets = chosen(parser, "data", a.data, table.data)
    for name in ("seeds", "steps"):
        if (value := getattr(a, name)) is not None and value < 1:
            parser.error(f"--{name}={value}: expected at least 1")
    if a.path and len(data_sets) > 1:
        parser.error(f"--path={a.path} needs --data, one of {', '.join(table.data)}")
    changes = changes_of(parser, a)
    if a.costs:
        print(page(table, data_sets, rows, a.scale, {data: {} for data in data_sets}))
        return 0
    logging.basicConfig(level=logging.WARNING)
    done: dict[str, dict[str, list]] = {data: {} for data in data_sets}
    try:
        configs = {  # all of them first, so that a wrong field is known before training
            (seed, data, key): config_of(table.rows[key], data, a.scale, seed, changes)
            for seed in range(a.seeds)
            for data in data_sets
            for key in rows
        }
        for (seed, data, key), config in configs.items():
            folder = folder_of(a.out, table.rows[key], data, a.scale, seed)
            result = trained(folder, config)
            if result is None:
                print("interrupted: the same command resumes")
                return 1
            done[data].setdefault(key, []).append((folder, result))
            print(f"{data}, {key}, seed {seed}: done", flush=True)
    except (ConfigError, Mismatch) as error:
        parser.error(str(error))
    text = page(table, data_sets, rows, a.scale, done)
    (a.out / a.scale / f"{table.name}.md").write_text(text)
    print(text, flush=True)
    return 0


def page(
    table: Table,
    data_sets: Sequence[str],
    rows: Sequence[str],
    scale: str,
    trainings: Mapping[str, intervals.Trainings],
) -> str:
    """The whole table as Markdown.

    Args:
        table: the table.
        data_sets: some of its data sets.
        rows: keys of the rows to show.
        scale: of the trainings.
        trainings: by data set.
    """
    parts, counted = [f"# {table.title}\n"], {}
    for data in data_sets:
        size = SIZES[data]
        if size not in counted:  # both MNIST sets have the same models
            counted[size] = {
                key: costs_of(paper_model(table.rows[key], data)) for key in rows
            }
        done = {
            key: [result for _, result in seeds]
            for key, seeds in trainings[data].items()
        }
        gains = intervals.of_claims(table, data, trainings[data])
        parts += [
            f"## {data}\n",
            render.scores_table(table, data, done, counted[size]),
            render.comparable(table, data, scale, done),
            render.claims_table(table, data, done, gains),
        ]
    parts += [f"- {note}" for note in table.notes]
    return "\n".join(part for part in parts if part) + "\n"


def chosen(
    parser: argparse.ArgumentParser,
    flag: str,
    text: str,
    known: Sequence[str] | Mapping,
) -> list[str]:
    """The names of a flag; an unknown one ends the program."""
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--{flag}={unknown[0]}: expected some of {', '.join(known)}")
    return names


def changes_of(
    parser: argparse.ArgumentParser, a: argparse.Namespace
) -> dict[str, Any]:
    """Changes of the config that the command line asks for."""
    changes: dict[str, Any] = {}
    if a.steps is not None:
        changes |= {
            "train.steps": a.steps,
            "train.validate_every": max(1, a.steps // 2),
        }
    if a.path:
        changes["data.path"] = a.path
    for item in a.set:
        field, equals, value = item.partition("=")
        if not equals or "." not in field:
            parser.error(f"--set {item}: expected FIELD=VALUE, such as data.stride=2")
        changes[field] = literal(value)
    return changes


def literal(text: str) -> Any:
    """A number, tuple or boolean; anything else is text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
