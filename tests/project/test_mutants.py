"""scripts/mutants.py: each mutant is a program that differs in one place."""

from __future__ import annotations

import ast
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


def test_every_mutant_is_another_program(mutants: ModuleType) -> None:
    chosen = mutants.choose(11, 0)
    assert chosen == mutants.choose(11, 0)
    assert len(chosen) == len(set(chosen)) >= 60
    for mutant in chosen:
        source = (ROOT / mutant.path).read_text(encoding="utf-8")
        changed = mutant.apply(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), mutant.describe(source)


def test_every_target_and_its_tests_exist(mutants: ModuleType) -> None:
    for target, tests in mutants.TARGETS.items():
        assert all((ROOT / path).exists() for path in (target, *tests))
