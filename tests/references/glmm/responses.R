# Reference values of tests/frame/test_responses.py and of the hard cases 7 and 25; run with Rscript.
suppressMessages({library(lme4); library(glmmTMB)})
data(cbpp, package = "lme4")
cbpp$obs <- factor(seq_len(nrow(cbpp)))
show <- function(name, fit) cat(name, sprintf("%.9f", as.numeric(logLik(fit))), "\n")
show("cbpp", glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial))
olre <- glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd) + (1 | obs), cbpp, binomial)
show("cbpp_olre", olre)
cat("cbpp_olre_sd", sprintf("%.6f", sqrt(unlist(VarCorr(olre)$cond))), "\n")
# 0/1 and two-level factor responses: any case of the disease in a herd and period
cbpp$any <- factor(ifelse(cbpp$incidence > 0, "yes", "no"))
show("any", glmmTMB(any ~ period + (1 | herd), cbpp, binomial))
# weights as multipliers of the log-likelihood
cbpp$w <- rep(c(1, 2, 3, 1), 14)
show("weighted", glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial,
                         weights = cbpp$w))
show("weighted01", glmmTMB(as.numeric(any == "yes") ~ period + (1 | herd), cbpp, binomial, weights = cbpp$w))
# counts with an offset
show("poisson", glmmTMB(incidence ~ period + offset(log(size)) + (1 | herd), cbpp, poisson))
# zero inflation and dispersion with formulas of their own
zip <- glmmTMB(incidence ~ period + (1 | herd), ziformula = ~ offset(size / 100) + scale(size), cbpp, poisson,
               start = list(betazi = c(-8, -7)))  # from its own start glmmTMB ends at a lower maximum, -91.162
show("cbpp_zip", zip)
cat("cbpp_zip_zi", sprintf("%.6f", fixef(zip)$zi), "\n")
zig <- glmmTMB(incidence ~ offset(log(size)), ziformula = ~ (1 | period), cbpp, poisson)
show("cbpp_zi_random", zig)
cat("cbpp_zi_random_sd", sprintf("%.6f", sqrt(unlist(VarCorr(zig)$zi))), "\n")
bb <- glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), dispformula = ~ scale(size), cbpp, betabinomial)
show("cbpp_betabinomial", bb)
cat("cbpp_betabinomial_disp", sprintf("%.6f", fixef(bb)$disp), "\n")
data(sleepstudy, package = "lme4")
disp <- glmmTMB(Reaction ~ Days + (1 | Subject), dispformula = ~ Days, sleepstudy)
show("sleep_disp", disp)
cat("sleep_disp_cond", sprintf("%.6f", fixef(disp)$cond), "disp", sprintf("%.6f", fixef(disp)$disp), "\n")
