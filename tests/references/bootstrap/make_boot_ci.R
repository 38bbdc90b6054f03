# Intervals of boot::boot.ci for 999 draws that are known in closed form; writes boot_ci.json beside this file.
# The draws are quantiles of a log-normal distribution, their variances a function of them.
library(boot)
R <- 999
i <- seq_len(R)
t <- 2 * exp(0.4 * qnorm((i - 0.5) / R) + 0.05)
v <- (0.3 + 0.1 * t)^2
t0 <- 2.0
v0 <- 0.5^2
L <- c(-1.1, -0.7, -0.45, -0.2, 0.05, 0.1, 0.3, 0.4, 0.6, 1.0)
object <- structure(list(t0 = c(t0, v0), t = cbind(t, v), R = R, data = data.frame(x = 1:10), seed = 1L,
  statistic = NULL, sim = "ordinary", call = quote(boot(data = x, statistic = s, R = 999)), stype = "i",
  strata = rep(1, 10), weights = rep(0.1, 10)), class = "boot")
out <- list()
for (level in c(0.9, 0.95)) {
  ci <- boot.ci(object, conf = level, type = c("norm", "basic", "stud", "perc", "bca"), L = L)
  out[[as.character(level)]] <- list(normal = ci$normal[2:3], basic = ci$basic[4:5], studentized = ci$student[4:5],
    percentile = ci$percent[4:5], bca = ci$bca[4:5], bca_places = ci$bca[2:3])
}
writeLines(jsonlite::toJSON(list(L = L, levels = out), digits = 15, auto_unbox = FALSE, pretty = TRUE), "boot_ci.json")
