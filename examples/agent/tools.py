"""What the agent can do: search the library, count words in it, calculate.

A tool that cannot do what it was asked raises ToolException: the model reads the sentence and can try again.
"""

import ast
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from operator import add, floordiv, mod, mul, neg, pos, sub, truediv

from langchain_core.tools import BaseTool, ToolException, tool

from examples import library

#: A model may write anything here. Longer expressions, or results of more bits, are refused before they are computed.
MAX_EXPRESSION_CHARS = 200
MAX_RESULT_BITS = 4096

#: No exponent: 1e999999999 is ten characters and a gigabyte of digits.
NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add,
    ast.Sub: sub,
    ast.Mult: mul,
    ast.Div: truediv,
    ast.FloorDiv: lambda a, b: Fraction(floordiv(a, b)),
    ast.Mod: mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {ast.UAdd: pos, ast.USub: neg}


@tool
def search_library(query: str) -> str:
    """Find passages in the library (Declaration of Independence, Bill of Rights, Gettysburg Address) by their words."""
    found = library.search(query, limit=2)
    if not found:
        raise ToolException(f"No text of the library holds any of the words of {query!r}.")
    return "\n".join(f"{section.source}: {_best_sentence(section, query)}" for section in found)


@tool
def count_words(title: str, word: str | None = None) -> str:
    """Count all words of a text of the library, or how often one word occurs in it."""
    try:
        text = library.get_text(title)
    except library.NoSuchText as error:
        raise ToolException(str(error)) from error
    found = library.words(text.text)
    if word is None:
        return f"The {text.title} has {len(found)} words."
    return f"In the {text.title}, {word!r} occurs {found.count(word.lower())} times."


@tool
def calculate(expression: str) -> str:
    """Calculate with + - * / // % ** and brackets, exactly. Example: (3 + 4) * 12."""
    return f"{expression} = {_render(evaluate(expression))}"


def evaluate(expression: str) -> Fraction:
    """The exact value. Raises ToolException for what is not arithmetic, and for what would grow too large."""
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise ToolException(f"The expression is longer than {MAX_EXPRESSION_CHARS} characters.")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body, expression)
    except ZeroDivisionError as error:
        raise ToolException(f"{expression} divides by zero.") from error
    except (SyntaxError, ValueError) as error:
        raise ToolException(f"{expression!r} is not an arithmetic expression.") from error


def _value(node: ast.expr, source: str) -> Fraction:
    match node:
        case ast.Constant() if NUMBER.fullmatch(written := ast.get_source_segment(source.strip(), node) or ""):
            # As it is written: 0.1 is a tenth here, not the nearest binary fraction.
            value = Fraction(written)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            value = _UNARY[type(op)](_value(operand, source))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            value = _power(_value(left, source), _value(right, source))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            value = _BINARY[type(op)](_value(left, source), _value(right, source))
        case _:
            raise ToolException(
                f"{source!r} is not an arithmetic expression: only numbers, + - * / // % ** and brackets."
            )
    if _bits(value) > MAX_RESULT_BITS:
        raise ToolException(f"The result of {source} is too large.")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ToolException("Only whole exponents: roots are not exact.")
    if _bits(base) * abs(exponent.numerator) > MAX_RESULT_BITS:
        raise ToolException("The power is too large.")
    return Fraction(base**exponent.numerator)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _render(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    with localcontext(prec=12):
        return f"{(Decimal(value.numerator) / Decimal(value.denominator)).normalize():f}"


def _best_sentence(section: library.Section, query: str) -> str:
    asked = set(library.telling_words(query))
    return max(library.sentences(section.text), key=lambda sentence: len(asked & set(library.words(sentence))))


TOOLS: tuple[BaseTool, ...] = (search_library, count_words, calculate)
for _tool in TOOLS:
    _tool.handle_tool_error = True
