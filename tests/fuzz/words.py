"""Words of the small languages that are read, and texts in them, for `mutated_words`."""

from __future__ import annotations

COMMON = [
    b" ",
    b"\n",
    b"\0",
    b"\\",
    "\u2028\u202e".encode(),
    "²٣é€".encode(),
    b"9" * 5000,
    b"1e999",
]

MATRIX = [b'recipe = ["fast", "auto"]\nprocesses = [1, 2]\nscaling = "strong"\n']
MATRIX_WORDS = [
    *b"recipe device precision kernels processes threads seeds scaling".split(),
    *b"= [ ] { } , . # a 1 2".split(),
    *b'" \' """ [[ ]] -1 inf nan true 0o7 1_000 [1,2] [1,2,4] 100000 07:32:00 9999-99-99'.split(),
    *b'"fast" "reference" "weak" "strong" "auto" "cpu" "\\uD800" 1979-05-27T07:32:00Z'.split(),
    *(b"0x" + b"f" * 5000, b"9" * 4299, b"[[a]]\n", b".a"),
    *COMMON,
]

FILTER = [b"device == 'cpu' and seed in [1, 2]", b"not (label is None)"]
FILTER_WORDS = [
    *b"recipe seed threads label device final_accuracy time_to_target_seconds None True".split(),
    *b"== != < >= is in and or not ( ) [ ] , - 1 1j 'a' \"fast\" b'a' f'{1}' ... * := #".split(),
    *b"lambda _ await yield () [1] {} if else for '\\d' '\\N{DIGIT' 1if 1else".split(),
    *(b"not in", b"is not", b"0x" + b"f" * 900),
    *COMMON,
]

TAGS = [b'mean - low of final_accuracy, runs in a where recipe == "b"', b"value low of a * b / c"]
PAGES = [
    b"Time 6.26 s<!-- figures: time_to_target_seconds_median in results --> and 99.4 % (99.3 to 99)"
    b'<!-- figures a: mean low high of final_accuracy in results where recipe == "fast" -->.\n\n'
    b"1e99 s<!-- figures: mean of train_seconds in results -->\n\n"
    b"| 3<!-- figures: value of a * a / a --> |\n",
    b"1.0 s<!-- figures b: mean of train_seconds * 2 / 3 - of seed in results where seed > 0 -->\n",
]
TAG_WORDS = [
    *b"mean low high value - of where / * + , ( ) [ ] \" ' final_accuracy runs results/a".split(),
    *b"0 1 100 1e-999 1e-400 1e9999 1e99999999999999999999 == <!-- --> figures : ` ]( http://".split(),
    *(b"<!-- figures:", b"<!-- figures a: ", b"6.26 s", b"1,234", b"\n\n", b"```\n", b"| a |\n"),
    *COMMON,
]

OPTIONS = [b"90s", b"5%", b"2.49 EUR", b"2/4", b"1,2,4", b"a:29500", b"seed,label", b"99.4"]
OPTION_WORDS = [
    *b"1 2.49 0 -1 1e5 -0 nan inf Infinity sNaN 1_0 % s min h m ms EUR $ , / : . + e auto".split(),
    *b"seed recipe [::1] host fast weak -".split(),
    *COMMON,
]

MACHINE = [
    b"processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: 8\n",
    b"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\nCPU revision\t: 1\n",
    b"machdep.cpu.brand_string: Apple M2\nhw.nperflevels: 2\nhw.perflevel0.physicalcpu: 4\n",
    b"nr_periods 3\nthrottled_usec 120\nthrottled_time 99\n",
    b"0::/user.slice\n4:cpu,cpuacct:/a\n",
    b"NVRM version: NVIDIA UNIX Kernel Module  535.104.05  Sat Aug 19\n",
    b"PARAMETERS = 19_994\nassert count == PARAMETERS\n",
    b"FAST = Recipe(name='fast', epochs=3)\nB = replace(FAST, a={1: 2})\n",
    *(b"0-3,8\n", b"48K\n", b"150000 100000\n", b'"gpu-core-count" = 10\n'),
]
MACHINE_WORDS = [
    *b": - , 0 0x K G max -1 nan 0-99999999999 cpu :: PARAMETERS Recipe( **x {[]:1}".split(),
    *(b"throttled_usec ", b"hw.physicalcpu: 99999999999999999", b"(" * 99, b"\xc2\x85"),
    *(b"cpu family : 18446744073709551616", b"B = replace(FAST, "),
    *COMMON,
]

LEAK_WORDS = [
    *b'a. a- : 0: eyJa- x:// x://a: /home/ @ -- users\\ 1.2.3.4 a@b.c { } [ ] " , ::1'.split(),
    *(b"token ", b"serial ", b"-----BEGIN ", b"0" * 64),
    *COMMON,
]
