"""What is fuzzed: every reader of what a stranger may hand us."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from mnist_cnn.data.files import NotMnistError
from mnist_cnn.errors import DamagedCheckpointError, UsageError
from tests.fuzz import harness_readers as harness, words, workload_readers as workload
from tests.fuzz.mutations import (
    mutated_bytes,
    mutated_json,
    mutated_lines,
    mutated_png,
    mutated_safetensors,
    mutated_words,
    mutated_zip,
)
from tests.fuzz.promises import Corpus, Mutate, Read, Target


def words_of(words: Sequence[bytes]) -> Mutate:
    """Mutate a text with these words."""
    return lambda rng, content: mutated_words(rng, content, words)


def targets() -> list[Target]:
    """All of them."""
    return [*_documents(), *_commands(), *_texts(), *_files()]


def _documents() -> list[Target]:
    """Documents in JSON, and zip files of them."""

    def document(name: str, corpus: Corpus, read: Read, *refusals: type[Exception]) -> Target:
        return Target(name=name, corpus=corpus, mutate=mutated_json, read=read, refusals=refusals)

    return [
        document("record", harness.records, harness.read_record),
        document("noise floor", harness.floors, harness.read_floor),
        document("peak", harness.peaks, harness.read_peak),
        document("plan", harness.plans, harness.read_a_plan, ValueError),
        document("manifest", harness.manifests, harness.read_manifest, UsageError),
        document("notes of processes", harness.notes, harness.read_notes),
        replace(
            document("sweep plan", harness.sweep_plans, harness.read_a_sweep_plan, ValueError),
            mutate=mutated_lines,
        ),
        replace(document("run log", harness.logs, harness.read_a_log), mutate=mutated_lines),
        replace(
            document("zip", harness.records, harness.read_zip),
            mutate=mutated_zip,
            inputs_in_tests=12,
        ),
    ]


def _commands() -> list[Target]:
    """Commands on a results folder with such a document."""
    beside = {
        "2.json": harness.new_records,
        "x.plan": harness.plans,
        "x.noise": harness.floors,
        "x.peak": harness.peaks,
        "x.sweep": harness.sweep_plans,
    }
    return [
        Target(
            name=f"commands with {name}",
            corpus=corpus,
            mutate=mutated_json,
            read=partial(harness.run_a_command, name),
            seconds=3.0,
            inputs_in_tests=3,
        )
        for name, corpus in beside.items()
    ]


def _texts() -> list[Target]:
    """Texts in small languages."""

    def text(name: str, corpus: Sequence[bytes], known: Sequence[bytes], read: Read) -> Target:
        return Target(name=name, corpus=lambda: corpus, mutate=words_of(known), read=read)

    return [
        text("matrix", words.MATRIX, words.MATRIX_WORDS, harness.read_a_matrix),
        text("filter", words.FILTER, words.FILTER_WORDS, harness.read_a_filter),
        text("tag", words.TAGS, words.TAG_WORDS, harness.read_a_request),
        text("page", words.PAGES, words.TAG_WORDS, harness.read_a_page),
        text("options", words.OPTIONS, words.OPTION_WORDS, harness.read_options),
        text("machine", words.MACHINE, words.MACHINE_WORDS, harness.read_machine),
        text("privacy", harness.records(), words.LEAK_WORDS, harness.read_for_leaks),
    ]


def _files() -> list[Target]:
    """Files of bytes."""

    def file(name: str, corpus: Corpus, read: Read, *refusals: type[Exception]) -> Target:
        return Target(name=name, corpus=corpus, mutate=mutated_bytes, read=read, refusals=refusals)

    return [
        file("idx", workload.idx, partial(workload.read_idx, "x"), NotMnistError),
        file("idx.gz", workload.idx_gz, partial(workload.read_idx, "x.gz"), NotMnistError),
        file("pickle", workload.pickles, workload.read_pickle, pickle.UnpicklingError),
        file("checkpoint", workload.checkpoints, workload.read_checkpoint, DamagedCheckpointError),
        replace(
            file("weights", workload.weights, workload.read_weights, UsageError),
            mutate=mutated_safetensors,
        ),
        replace(
            file("picture", workload.pictures, workload.read_picture, UsageError),
            mutate=mutated_png,
            seconds=2.0,
            inputs_in_tests=12,
        ),
    ]
