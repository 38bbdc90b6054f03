"""One small adapter per Python peer: ``version()``, ``fit(case, frame)``, ``text(fit)``, ``objective(fit)``.

``fit`` starts from the data frame, ``text`` makes the printed summary; both are timed together. ``NOTE`` says
what a peer does more or less than the others. An adapter raises `NotImplementedError` for a model its package
cannot fit.
"""
