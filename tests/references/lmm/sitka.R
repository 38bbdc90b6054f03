library(MASS); library(lme4); d <- Sitka; write.csv(d, "../data/Sitka.csv", row.names=FALSE, quote=FALSE)
m <- lmer(size ~ Time + (1|tree), d, control=lmerControl(optCtrl=list(ftol_abs=1e-14,xtol_abs=1e-12)))
print(c(REMLcrit(m), fixef(m), sqrt(diag(vcov(m))), as.data.frame(VarCorr(m))$vcov), digits=12)
