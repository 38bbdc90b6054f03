# Intervals of covariance parameters by nlme 3.1, for tests/inference/test_structured_profile.py.
suppressMessages(library(nlme)); data(Orthodont); o <- as.data.frame(Orthodont); o$occ <- as.integer(o$age/2-3)
f <- gls(distance ~ age*Sex, o, correlation=corAR1(form=~occ|Subject), weights=varIdent(form=~1|Sex))
print(intervals(f, which="var-cov"), digits=10)
f <- lme(distance ~ age*Sex, random=~1|Subject, data=o, correlation=corAR1(form=~occ|Subject), weights=varIdent(form=~1|Sex))
print(intervals(f, which="var-cov"), digits=10)
f <- gls(distance ~ age*Sex, o, correlation=corCompSymm(form=~1|Subject)); print(intervals(f, which="var-cov"), digits=10)
f <- gls(distance ~ age*Sex, o, correlation=corSymm(form=~occ|Subject)); print(intervals(f, which="var-cov"), digits=10)
f <- gls(distance ~ age*Sex, o, correlation=corCAR1(form=~age|Subject), weights=varPower(form=~age)); print(intervals(f, which="var-cov"), digits=10)
