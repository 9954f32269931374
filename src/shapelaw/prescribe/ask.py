"""Ask a fit for the best size for a budget, the cheapest size for a loss, or the loss of a given size."""

from __future__ import annotations

import contextlib
import math

import numpy as np

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import Prescription, collect
from shapelaw.prescribe.goals import LEASTS, AtTokens, ReachLoss, SpendBudget
from shapelaw.prescribe.optimum import Optimum, exact
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.surface import LOG_TOKENS_MAX
from shapelaw.prescribe.trust import refuse_nonsense, refuse_ridge

SCAN_DECADES, SCAN_STEP = 10.0, 0.05
"""How far from a budget to look for one that the shapes can serve, and in which steps (decades)."""
WIDER = (
    ("shape", "widen the rules (rules.width_min, rules.width_max, rules.depth_min, rules.depth_max)"),
    ("size", "limit the sizes yourself (limits.params_min, limits.params_max)"),
)
"""With and without shapes: what the search covers, and how to extend it."""


class Problem(SizeSearch):
    """A search that answers questions: `best` for a budget, `reach` a loss, the loss `at` a size."""

    def best(self, budget: float) -> Prescription:
        """The size and tokens with the lowest predicted loss for a budget in the cost's unit.

        For every size the tokens follow from the budget: tokens = (budget - serving) / cost per trained token. So the
        search covers sizes alone; it is repeated for every refit of the law.

        Raises:
            UserError: if the budget is not positive, buys no token, or its best shape is the smallest or largest of all, or
                if the law cannot answer this question.

        >>> import pandas as pd
        >>> from shapelaw import RunsTable, fit
        >>> sizes = pd.DataFrame({"params": [1e8, 2e8, 4e8] * 3, "tokens": [1e9] * 3 + [4e9] * 3 + [16e9] * 3})
        >>> runs = RunsTable(sizes.assign(run=range(9), loss=1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28))
        >>> answer = Problem.of(fit(runs), runs, space="params").best(1e19)
        >>> f"{answer.values['params']:.3g} parameters, {answer.values['tokens']:.3g} tokens"
        '2.32e+08 parameters, 7.19e+09 tokens'
        """
        self._check_question("best", "budget")
        if not (math.isfinite(budget) and budget > 0):
            raise UserError(f"budget={budget}: allowed values are positive numbers of {self.cost.unit}")
        goal, option = SpendBudget(budget), f"budget={budget:.6g} {self.cost.unit}"
        optimum = self.search(goal)
        self._refuse_unaffordable(optimum, budget)
        refuse_ridge(self, lambda other: other.search(goal), option)
        self._refuse_ends(optimum, option, budget)
        return self._told(optimum, f"lowest loss for {budget:.6g} {self.cost.words}", option)

    def reach(self, loss: float, least: str = "cost") -> Prescription:
        """The cheapest size and tokens that reach a predicted loss, serving included.

        Args:
            loss: in the unit of the fit's losses.
            least: what to minimise: `cost` (in the cost's unit) or `tokens`. Limit the size when you minimise tokens: if the
                terms of the law are added, the largest model always needs the fewest.

        Raises:
            UserError: if no allowed size reaches the loss under the law, or the best is the smallest or largest of all, or
                if the law cannot answer this question.
        """
        self._check_question("reach", "loss")
        if least not in LEASTS:
            raise UserError(f"least={least}: allowed values are {', '.join(LEASTS)}")
        goal = ReachLoss(loss, least)
        optimum = self.search(goal)
        if not math.isfinite(optimum.value[0]):
            raise UserError(
                f"loss={loss:g}: under law {self.fit.law} no allowed size reaches it at any number of tokens; "
                f"the lowest is {self.lowest_loss():.6g} {self.fit.loss_unit}"
            )
        refuse_ridge(self, lambda other: other.search(goal), f"loss={loss:g}")
        if least == "cost" or self.space == "params":
            self._refuse_ends(optimum, f"loss={loss:g}")
        unit = self.cost.words if least == "cost" else "tokens"
        return self._told(optimum, f"least {unit} for a loss of {loss:g}", f"loss={loss:g}")

    def at(self, width: int, depth: int, tokens: float) -> Prescription:
        """The predicted loss and cost of a given shape and token count.

        Raises:
            UserError: if a size is not positive, or the law cannot answer this question.
        """
        self._check_question("at", "width, depth, tokens")
        if width < 1 or depth < 1 or not (math.isfinite(tokens) and tokens > 0):
            raise UserError(f"width={width}, depth={depth}, tokens={tokens}: all must be positive")
        goal, points = AtTokens(tokens), self.world.points([width], [depth])
        option = f"width={width}, depth={depth}, tokens={tokens:g}"
        refuse_ridge(self, lambda other: exact(other.objective(goal), points), option)
        return self._told(exact(self.objective(goal), points), "loss of a given shape", option)

    def at_size(self, params: float, tokens: float) -> Prescription:
        """The predicted loss for parameters, as the law counts them, and tokens; for laws without width and depth.

        Raises:
            UserError: if one is not positive, or the law cannot answer this question.
        """
        self._check_question("size", "params, tokens")
        goal, points = AtTokens(tokens), self.world.sizes(np.array([params]))
        option = f"params={params:g}, tokens={tokens:g}"
        refuse_ridge(self, lambda other: exact(other.objective(goal), points), option)
        return self._told(exact(self.objective(goal), points), "loss of a given size", option)

    def tokens_for(self, params: float, loss: float) -> Prescription:
        """The tokens at which a model with these parameters, as the law counts them, reaches a loss.

        Raises:
            UserError: if no number of tokens suffices, or the law cannot answer this question.
        """
        self._check_question("size", "params, loss")
        goal, points = ReachLoss(loss, "tokens"), self.world.sizes(np.array([params]))
        option = f"params={params:g}, loss={loss:g}"
        optimum = exact(self.objective(goal), points)
        if not math.isfinite(optimum.value[0]):
            floor = float(self.surface.at(points).loss(np.array([LOG_TOKENS_MAX]))[0, 0])
            raise UserError(
                f"{option}: under law {self.fit.law} this many parameters do not reach it at any number of tokens; the "
                f"lowest is {floor:.6g} {self.fit.loss_unit}"
            )
        refuse_ridge(self, lambda other: exact(other.objective(goal), points), option)
        return self._told(optimum, f"tokens of a given size for a loss of {loss:g}", option)

    def serves(self, budget: float) -> bool:
        """Whether the best size for a budget is neither the smallest nor the largest of all."""
        alone = self.without_refits()
        return not alone.end_of(alone.search(SpendBudget(budget)))

    def nearest_served(self, budget: float) -> float | None:
        """The budget nearest to the given one (or that one itself) whose best shape is neither the smallest nor the largest.

        The search goes upward if the best shape is the smallest or the budget buys nothing, downward if it is the largest.
        A budget other than the given one has two digits; None if none lies within ten decades.
        """
        alone = self.without_refits()
        end = alone.end_of(alone.search(SpendBudget(budget)))
        if not end:
            return budget
        for step in np.arange(SCAN_STEP, SCAN_DECADES, SCAN_STEP):
            other = float(f"{budget * 10 ** (-step if end == 'largest' else step):.1e}")
            if alone.serves(other):
                return other
        return None

    def largest_inside(self, budget: float) -> float | None:
        """The largest budget up to the given one whose best size lies in the fitted domain and is neither the smallest nor the
        largest. A budget other than the given one has two digits; None if none lies within ten decades."""
        alone = self.without_refits()
        for step in np.arange(0, SCAN_DECADES, SCAN_STEP):
            other = float(f"{budget * 10**-step:.1e}") if step else budget
            with contextlib.suppress(UserError):
                if alone.best(other).inside:
                    return other
        return None

    def answers(self, budget: float) -> bool:
        """Whether `best` has an answer for a budget."""
        with contextlib.suppress(UserError):
            self.without_refits().best(budget)
            return True
        return False

    def _told(self, optimum: Optimum, question: str, option: str) -> Prescription:
        """The answer, unless the law has no value there."""
        answer = collect(self, optimum, question)
        refuse_nonsense(self, answer.values, answer.outside, option)
        return answer

    def _check_question(self, question: str, options: str) -> None:
        """Refuse a question that the law cannot answer."""
        law = self.surface.law
        if question not in law.questions:
            raise UserError(
                f"{options}: law={law.name} answers only {' and '.join(law.questions) or 'no question'}, not "
                f"{question}; ask that, or give a fit of another law"
            )

    def _refuse_unaffordable(self, optimum: Optimum, budget: float) -> None:
        if not math.isfinite(optimum.value[0]):
            raise UserError(
                f"budget={budget:.6g} {self.cost.unit}: buys no training token at any allowed size{self._ends_text()}; "
                "give a larger budget, or fewer inference_tokens"
            )

    def _refuse_ends(self, optimum: Optimum, option: str, budget: float | None = None) -> None:
        """Refuse an optimum at the smallest or largest of all sizes: the true one lies outside the search."""
        which = self.end_of(optimum)
        if not which:
            return
        other = None if budget is None else self.nearest_served(budget)
        instead = "give another" if other is None else f"give the nearest budget that they serve, about {other:.3g}"
        kind, wider = WIDER[self.space == "params"]
        raise UserError(
            f"{option}: outside the range that the {kind}s can serve, because the best is the {which} of "
            f"all{self._ends_text()}; "
            f"{instead}, or {wider}"
        )

    def _ends_text(self) -> str:
        if self.shapes is None and self.limits.given:
            return ""  # the corners of such a box need not be the smallest and the largest
        ends = self.ends()
        names = [
            f"{n:.3g} params, {cost:.3g} FLOPs a token" for n, cost in zip(ends.params, ends.train_flops, strict=True)
        ]
        if ends.width is not None and ends.depth is not None:
            sizes = zip(ends.width, ends.depth, names, strict=True)
            names = [f"{width:.0f}x{depth:.0f} ({name})" for width, depth, name in sizes]
        kind, _ = WIDER[self.space == "params"]
        return f"; the smallest {kind} is {names[0]}, the largest {names[1]}"
