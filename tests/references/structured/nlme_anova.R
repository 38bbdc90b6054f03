# Likelihood ratio of a variance function by nlme 3.1, for tests/inference/test_structured_inference.py.
suppressMessages(library(nlme))
data(Orthodont)
none <- gls(distance ~ age * Sex, Orthodont)
groups <- gls(distance ~ age * Sex, Orthodont, weights = varIdent(form = ~ 1 | Sex))
table <- anova(none, groups)
print(table$L.Ratio, digits = 12)
print(table$`p-value`, digits = 12)
