# Marginal means, tests and comparisons of generalised mixed models by lme4 and glmmTMB with emmeans.
# Writes emmeans.json beside this script: Rscript make_emmeans.R (in tests/references/glmm).
suppressMessages({library(lme4); library(glmmTMB); library(emmeans); library(jsonlite)})
emm_options(msg.nesting = FALSE, msg.interaction = FALSE)
data(Owls, package = "glmmTMB"); data(Salamanders, package = "glmmTMB")
Salamanders$site <- factor(as.character(Salamanders$site))
data(VerbAgg, package = "lme4"); data(cbpp, package = "lme4")
# glmmTMB to the last digits of its optimiser
tight <- glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-15, x.tol = 1e-12))
VerbAgg <- VerbAgg[as.integer(VerbAgg$id) <= 60, ]
tab <- function(x) { x <- as.data.frame(x); for (j in seq_along(x)) if (is.factor(x[[j]])) x[[j]] <- as.character(x[[j]]); x }
chisq <- function(b, V, keep) {  # Wald statistic of some coefficients
  b <- b[keep]; c(chisq = drop(b %*% solve(V[keep, keep], b)), df = length(b)) }
lrt <- function(a, b) c(chisq = 2 * as.numeric(logLik(b) - logLik(a)), df = attr(logLik(b), "df") - attr(logLik(a), "df"))
out <- list(versions = list(R = R.version.string, lme4 = as.character(packageVersion("lme4")),
  glmmTMB = as.character(packageVersion("glmmTMB")), emmeans = as.character(packageVersion("emmeans"))))

# cbpp, binomial logit (Laplace)
m <- glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, control = tight, family = binomial)
m0 <- glmmTMB(cbind(incidence, size - incidence) ~ 1 + (1 | herd), cbpp, control = tight, family = binomial)
mf <- glmmTMB(cbind(incidence, size - incidence) ~ period, cbpp, control = tight, family = binomial)
e <- emmeans(m, ~ period); s <- sqrt(VarCorr(m)$cond$herd[1, 1])
out$cbpp <- list(loglik = as.numeric(logLik(m)), fixef = as.list(fixef(m)$cond),
  link = tab(e), response = tab(summary(e, type = "response")),
  ratios = tab(summary(pairs(e, adjust = "none"), type = "response", infer = TRUE)),
  bias = tab(summary(e, type = "response", bias.adjust = TRUE, sigma = s)), sd = s,
  regrid_pairs = tab(summary(pairs(regrid(e), adjust = "none"), infer = TRUE)),
  wald = as.list(chisq(fixef(m)$cond, vcov(m)$cond, 2:4)),
  lrt_period = as.list(lrt(m0, m)), lrt_herd = as.list(lrt(mf, m)))
g1 <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial, control = glmerControl(tolPwrss = 1e-13))
g0 <- glmer(cbind(incidence, size - incidence) ~ 1 + (1 | herd), cbpp, binomial, control = glmerControl(tolPwrss = 1e-13))
a <- anova(g0, g1); d <- drop1(g1, test = "Chisq")
out$cbpp$glmer_anova <- list(aic = a$AIC, bic = a$BIC, loglik = a$logLik, chisq = a$Chisq[2], df = a$Df[2], p = a$`Pr(>Chisq)`[2])
out$cbpp$glmer_drop1 <- list(aic = d$AIC, lrt = d$LRT[2], p = d$`Pr(Chi)`[2])

# probit and cloglog links
for (link in c("probit", "cloglog")) {
  m <- glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, control = tight, family = binomial(link))
  out[[paste0("cbpp_", link)]] <- list(response = tab(summary(emmeans(m, ~ period), type = "response")))
}

# VerbAgg, 60 persons: interactions, a covariate
m <- glmmTMB(r2 ~ Anger + mode * situ + (1 | id) + (1 | item), VerbAgg, control = tight, family = binomial)
V <- vcov(m)$cond; b <- fixef(m)$cond
e <- emmeans(m, ~ mode | situ)
sumc <- glmmTMB(r2 ~ Anger + mode * situ + (1 | id) + (1 | item), VerbAgg, control = tight, family = binomial,
  contrasts = list(mode = "contr.sum", situ = "contr.sum"))
Vs <- vcov(sumc)$cond; bs <- fixef(sumc)$cond
additive <- glmmTMB(r2 ~ Anger + mode + situ + (1 | id) + (1 | item), VerbAgg, control = tight, family = binomial)
out$verbagg <- list(loglik = as.numeric(logLik(m)), response = tab(summary(e, type = "response")),
  ratios = tab(summary(pairs(e), type = "response", infer = TRUE)),
  mode_response = tab(summary(emmeans(m, ~ mode), type = "response")),
  mode_regrid = tab(summary(emmeans(m, ~ mode, regrid = "response"))),
  trend = tab(emtrends(m, ~ mode, var = "Anger")),
  trend_response = tab(summary(emtrends(m, ~ mode, var = "Anger", regrid = "response", delta.var = 1e-3))),
  type3 = list(Anger = as.list(chisq(bs, Vs, 2)), mode = as.list(chisq(bs, Vs, 3)), situ = as.list(chisq(bs, Vs, 4)),
    "mode:situ" = as.list(chisq(bs, Vs, 5))),
  lrt_interaction = as.list(lrt(additive, m)))

# Owls, negative binomial with an offset
m <- glmmTMB(SiblingNegotiation ~ FoodTreatment * SexParent + ArrivalTime + offset(log(BroodSize)) + (1 | Nest),
  Owls, control = tight, family = nbinom2)
m0 <- update(m, . ~ . - FoodTreatment:SexParent)
e <- emmeans(m, ~ FoodTreatment | SexParent)
out$owls <- list(loglik = as.numeric(logLik(m)), response = tab(summary(e, type = "response")),
  ratios = tab(summary(pairs(e), type = "response", infer = TRUE)),
  zero_offset = tab(summary(emmeans(m, ~ FoodTreatment, offset = 0), type = "response")),
  trend = tab(emtrends(m, ~ FoodTreatment, var = "ArrivalTime")),
  trend_response = tab(summary(emtrends(m, ~ FoodTreatment, var = "ArrivalTime", regrid = "response", delta.var = 1e-5))),
  lrt_interaction = as.list(lrt(m0, m)))

# Salamanders, zero-inflated Poisson
m <- glmmTMB(count ~ spp + mined + (1 | site), ziformula = ~ mined, Salamanders, control = tight, family = poisson)
nd <- expand.grid(spp = levels(Salamanders$spp), mined = levels(Salamanders$mined)); nd$site <- NA
p <- predict(m, nd, type = "response", se.fit = TRUE, re.form = NA)
m0 <- update(m, . ~ . - spp); mz <- update(m, ziformula = ~ 1); mp <- update(m, ziformula = ~ 0)
Z <- vcov(m)$zi; z <- fixef(m)$zi
out$salamanders <- list(loglik = as.numeric(logLik(m)), response = tab(summary(emmeans(m, ~ spp + mined), type = "response")),
  zi = tab(summary(emmeans(m, ~ mined, component = "zi"), type = "response")),
  zi_ratio = tab(summary(pairs(emmeans(m, ~ mined, component = "zi")), type = "response", infer = TRUE)),
  mixture = list(spp = as.character(nd$spp), mined = as.character(nd$mined), fit = p$fit, se = p$se.fit),
  wald_spp = as.list(chisq(fixef(m)$cond, vcov(m)$cond, 2:7)), wald_zi = as.list(chisq(z, Z, 2)),
  lrt_spp = as.list(lrt(m0, m)), lrt_zi = as.list(lrt(mz, m)), lrt_zip = as.list(lrt(mp, mz)))
mz <- try(summary(emmeans(m, ~ mined, component = "response")), silent = TRUE)
if (!inherits(mz, "try-error")) out$salamanders$component_response <- tab(mz)

# Gamma with a log link; a dispersion model
gam <- read.csv("../data/sim_gamma.csv", stringsAsFactors = TRUE)
m <- glmmTMB(y ~ x + trt + (1 | g), gam, control = tight, family = Gamma("log"), dispformula = ~ trt)
out$gamma <- list(loglik = as.numeric(logLik(m)), response = tab(summary(emmeans(m, ~ trt), type = "response")),
  ratios = tab(summary(pairs(emmeans(m, ~ trt)), type = "response", infer = TRUE)),
  wald_trt = as.list(chisq(fixef(m)$cond, vcov(m)$cond, grep("trt", names(fixef(m)$cond)))),
  wald_disp = as.list(chisq(fixef(m)$disp, vcov(m)$disp, 2:length(fixef(m)$disp))))
write_json(out, "emmeans.json", digits = 10, auto_unbox = TRUE, null = "null", na = "null", dataframe = "columns")
