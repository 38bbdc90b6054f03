# Fit every model in lmm/*.json again with lme4 and compare with the file.
#   Rscript make_lmm.R [id ...]       (run in this folder; needs lme4 and jsonlite)
suppressMessages({ library(lme4); library(jsonlite); library(splines) })
columns <- fromJSON("data/columns.json", simplifyVector = FALSE)
read_table <- function(name) {
  if (is.null(columns[[name]])) return(get(name, envir = asNamespace("lme4")))
  spec <- columns[[name]]
  data <- read.csv(file.path("data", spec$file), colClasses = "character", check.names = FALSE, na.strings = "")
  for (column in names(spec$columns)) {
    type <- spec$columns[[column]]
    data[[column]] <- if (type$type %in% c("factor", "ordered"))
      factor(data[[column]], levels = unlist(type$levels), ordered = type$type == "ordered")
    else as.numeric(data[[column]])
  }
  data
}
control <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore",
                       optCtrl = list(xtol_abs = 1e-12, xtol_rel = 1e-12, ftol_abs = 1e-12, ftol_rel = 1e-15, maxeval = 1e5))
ids <- commandArgs(TRUE)
if (!length(ids)) ids <- sub("[.]json$", "", list.files("lmm"))
worst <- 0
for (id in ids) {
  ref <- fromJSON(file.path("lmm", paste0(id, ".json")), simplifyVector = FALSE)
  data <- read_table(ref$data)
  args <- list(as.formula(ref$formula), data = quote(data), REML = ref$estimation == "REML", control = quote(control))
  if (grepl("weights = w", ref$call)) args$weights <- quote(w)
  fit <- suppressMessages(do.call(lmer, args))
  objective <- if (isREML(fit)) REMLcrit(fit) else -2 * as.numeric(logLik(fit))
  beta <- vapply(ref$beta, function(b) b[[1]], 0); se <- vapply(ref$beta, function(b) b[[2]], 0)
  off <- c(criterion = (objective - ref$objective$deviance) / abs(ref$objective$deviance),
           beta = max(abs(fixef(fit)[names(beta)] - beta) / se), sigma = sigma(fit) / ref$sigma - 1)
  cat(sprintf("%-32s %s\n", id, paste(names(off), format(off, digits = 2), collapse = "  ")))
  if (abs(off[["criterion"]]) > 1e-7) { worst <- 1; cat("   DIFFERS from", ref$objective$deviance, "\n") }
}
quit(status = worst)
