# Profile intervals of a generalised model by lme4 1.1-31, as JSON on standard output.
# lme4 interpolates its profiles and stops its searches early: limits are good to about 1e-3 of the width.
suppressMessages(library(lme4))
fit <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)
limits <- suppressMessages(confint(fit, method = "profile"))
rows <- sprintf('  "%s": [%.8f, %.8f]', rownames(limits), limits[, 1], limits[, 2])
cat("{\n", paste(rows, collapse = ",\n"), "\n}\n", sep = "")
