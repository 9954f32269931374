"""The staged estimation of the step-and-batch law: critical batch, converged losses, learning curve, one after another.

1. `curves`: a run's validations, interpolated at a loss between two of them.
2. `critical` (B): batches of one size at equal losses -> B_crit(L) -> B_star, alpha_B.
3. `converged` (N): the loss that each size converges to -> N_c, alpha_N (E).
4. `adjusted` (S): every row in adjusted steps, the N terms held -> S_c, alpha_S.
5. `pipeline`: the three stages in order, at any multiplicities of the runs, so that resampled runs pass through all of them.

Source: Su et al. 2024 (arXiv 2403.06563), section 3; McCandlish et al. 2018 (arXiv 1812.06162), appendix E.
"""
