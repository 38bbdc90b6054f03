# Reference values for the formula tests, from R's stats, splines and MASS.
# Run from this directory:  Rscript make.R
suppressMessages({library(splines); library(jsonlite)})
write <- function(x, file) writeLines(toJSON(x, digits = NA, auto_unbox = TRUE, na = "string", pretty = TRUE), file)

# ---- terms() ---------------------------------------------------------------------------------------------
formulas <- c(
  "y ~ a", "y ~ a + b", "y ~ a * b", "y ~ a * b * c", "y ~ (a + b + c)^2", "y ~ (a + b + c)^3 - a:b:c",
  "y ~ a / b", "y ~ a / b / c", "y ~ (a + b) / c", "y ~ a / (b + c)", "y ~ a / (b * c)", "y ~ (a + b) / (c + d)",
  "y ~ (a * b) / c", "y ~ b %in% a", "y ~ a + b %in% a", "y ~ (a + b) %in% c", "y ~ a:b + b", "y ~ b + a:b",
  "y ~ a:b + b:a", "y ~ x:z + z:y2:x", "y ~ a:a", "y ~ a + a", "y ~ a - 1", "y ~ -1 + a", "y ~ 0 + a", "y ~ a + 0",
  "y ~ a - 1 + 1", "y ~ a + 0 - 0", "y ~ a - (b - 1)", "y ~ a - (a + b) + b", "y ~ a * b - a", "y ~ a * b * c - a:b",
  "y ~ (a - 1):b", "y ~ (0 + a) * b", "y ~ a:1", "y ~ a * 1", "y ~ 1", "y ~ 0", "y ~ +a", "y ~ (a + b - a)^2",
  "y ~ x.y + .z", "log(y) ~ poly(x, 2) * f", "y ~ I(x^2) + x", "y ~ a + offset(w)", "y ~ bs(x,df=4):f+ns( x , df=3 )",
  "y ~ I((x>1)|(z<2)) + I(x/2 * -z) + I(x%%2)", "y ~ `my x` * f", "~ a + b:c + a:d",
  "y ~ a:b:c + a:b + c + a", "y ~ (a + b):(c + d)", "y ~ a * (b + c) - b:a", "y ~ d:c + (a + c)^2",
  "y ~ 1 * a", "y ~ 1 / a", "y ~ a / 1", "y ~ (a - a) * b", "y ~ b * (a - a)", "y ~ (1 + b) / a", "y ~ b %in% (a - a)",
  "y ~ (b / c %in% a)^2 - c:(a * d) + d", "y ~ (a:b + c / d) %in% (d + b) * a", "y ~ (c + a * d)^2 / (b - c:a)",
  "y ~ d - (a - (b - 1 + c)) + a * b %in% d",
  "y ~ f(x, base = 2, k = c(1, 0.5)) + cut(x, breaks = 3, labels = FALSE)", "y ~ log(x, 10) + I(1e5 * x) + I(x * 0.0001)")
write(lapply(formulas, function(text) {
  t <- terms(as.formula(text))
  offsets <- attr(t, "offset")
  list(formula = text, labels = I(as.character(attr(t, "term.labels"))), intercept = attr(t, "intercept") == 1,
       offsets = I(vapply(offsets, function(i) deparse(attr(t, "variables")[[i + 1]]), "")))
}), "terms.json")

# ---- transforms: values on the data of the fit and on new data ------------------------------------------------
set.seed(1)
x <- round(c(runif(30, 0, 10), 2.5, 2.5), 4)
xnew <- c(-1, 0, 0.37, 2.5, 5.55, 9.9, 11.2)
f <- factor(rep(c("lo", "mid", "hi", "mid"), 8), levels = c("lo", "mid", "hi"))
calls <- c(
  "poly(x, 1)", "poly(x, 2)", "poly(x, 5)", "poly(x, 3, raw = TRUE)", "bs(x)", "bs(x, df = 4)", "bs(x, df = 7)",
  "bs(x, df = 5, degree = 2)", "bs(x, degree = 1, knots = c(3, 5))", "bs(x, df = 6, intercept = TRUE)",
  "bs(x, knots = c(2, 4, 8), Boundary.knots = c(-1, 12))", "bs(x, df = 5, Boundary.knots = c(1, 9))",
  "ns(x)", "ns(x, df = 2)", "ns(x, df = 3)", "ns(x, df = 6)", "ns(x, df = 4, intercept = TRUE)", "ns(x, knots = c(2, 4, 8))",
  "ns(x, df = 4, Boundary.knots = c(1, 9))", "ns(x, knots = 5, Boundary.knots = c(-2, 13), intercept = TRUE)",
  "scale(x)", "scale(x, center = FALSE)", "scale(x, scale = FALSE)", "scale(x, center = 2, scale = 4)",
  "I(x^2)", "log(x + 2)", "log(x + 2, 2)", "log(x + 2, base = 3)", "log2(x + 2)", "log10(x + 2)", "log1p(x + 1)", "exp(x / 10)",
  "expm1(x / 10)", "sqrt(x + 1)", "abs(x - 5)", "sin(x)", "cos(x)", "tan(x)", "floor(x)", "ceiling(x)", "round(x, 1)",
  "trunc(x - 5)", "I(x %% 3)", "I((x - 5) %% 3)", "I((x - 5) %/% 3)", "I(-x^2)", "I(2^-x)", "I((x > 2) + (x < 8))",
  "plogis(x - 5)", "qlogis(plogis(x - 5))", "ifelse(x > 5, x, 0)", "pmin(x, 5)", "pmax(x, 2, 3)", "as.numeric(x)", "cbind(x, x^2)")
write(list(x = x, xnew = xnew, calls = lapply(calls, function(text) {
  form <- as.formula(paste("~ 0 +", text))
  frame <- model.frame(form, data.frame(x = x))
  fitted <- model.matrix(form, frame)
  suppressWarnings(new <- model.matrix(form, model.frame(delete.response(terms(frame)), data.frame(x = xnew))))
  list(call = text, names = I(colnames(fitted)), values = unname(unclass(fitted)), new = unname(unclass(new)))
})), "transforms.json")

# ---- model matrices of calls that make factors --------------------------------------------------------------
g <- rep(c("b", "a", "c", "a"), 8)
k <- rep(c(10, 2, 33, 2), 8)
calls <- c("factor(g)", "factor(k)", "factor(g, levels = c(\"c\", \"a\", \"b\"))", "ordered(k)", "relevel(f, ref = \"hi\")",
           "relevel(f, \"mid\")", "C(f, sum)", "C(f, helmert)", "C(f, poly)", "C(f, treatment)", "C(f, contr.sum)",
           "C(f, contr.treatment(3, base = 2))", "C(ordered(f))", "factor(k, labels = c(\"u\", \"v\", \"w\"))", "cut(x, 3)",
           "cut(x, c(0, 2.5, 5, 10))", "cut(x, c(0, 2.5, 5, 10), right = FALSE)", "cut(x, c(0, 2.5, 10), include.lowest = TRUE)",
           "cut(x, c(0, 5, 10), labels = c(\"low\", \"high\"))", "cut(x, breaks = c(-Inf, 3.33333, 6.66667, Inf))",
           "I(x > 5)", "I(x > 5 & f == \"mid\")", "I(!(x > 5) | k == 2)", "I(g %in% c(\"a\", \"c\"))", "I(g == \"a\")", "interaction(g, k)")
write(list(f = as.character(f), g = g, k = k, calls = lapply(calls, function(text) {
  form <- as.formula(paste("~", text))
  frame <- model.frame(form, data.frame(x, f, g, k), drop.unused.levels = TRUE)
  list(call = text, names = I(colnames(model.matrix(form, frame))),
       levels = I(if (is.factor(frame[[1]])) levels(frame[[1]]) else c("FALSE", "TRUE")),
       codes = as.integer(factor(frame[[1]], levels = if (is.factor(frame[[1]])) levels(frame[[1]]) else c(FALSE, TRUE))) - 1L,
       values = unname(model.matrix(form, frame))[, -1, drop = FALSE])
})), "factors.json")

# ---- cut labels ---------------------------------------------------------------------------------------------
breaks <- list(c(0, 1, 2), c(0.001, 0.0012, 123456), c(-1.5, 0, 1e6), c(1000, 1000.1, 1000.2), c(0, 1/3, 2/3, 1), c(1e-10, 1, 1e10))
write(lapply(breaks, function(b) list(breaks = b, labels = levels(cut(1, b)), left = levels(cut(1, b, right = FALSE, include.lowest = TRUE)),
                                      five = levels(cut(1, b, dig.lab = 5)))), "cut.json")

# ---- contrasts ----------------------------------------------------------------------------------------------
kinds <- list(treatment = contr.treatment, sum = contr.sum, helmert = contr.helmert, poly = contr.poly, SAS = contr.SAS,
              sdif = MASS::contr.sdif)
out <- list()
for (name in names(kinds)) for (m in c(2, 3, 4, 7)) {
  lev <- letters[1:m]
  mat <- if (name == "poly") contr.poly(m) else kinds[[name]](lev)
  names <- colnames(mat); if (is.null(names)) names <- as.character(seq_len(m - 1))
  out[[length(out) + 1]] <- list(name = name, m = m, names = I(names), matrix = unname(unclass(mat))[seq_len(m), seq_len(m - 1), drop = FALSE])
}
p <- contr.poly(4, scores = c(1, 2, 4, 8))
out[[length(out) + 1]] <- list(name = "poly", m = 4, scores = c(1, 2, 4, 8), names = I(colnames(p)), matrix = unname(p)[, ])
b <- contr.treatment(letters[1:4], base = 3)
out[[length(out) + 1]] <- list(name = "treatment", m = 4, base = 3, names = I(colnames(b)), matrix = unname(b)[, ])
write(out, "contrasts.json")

# ---- spelling of numbers and expressions -------------------------------------------------------------------
expressions <- c("x/2", "x * 2", "x%%2", "x%/%2", "-x", "!x", "1:3", "(x > 1) | (z < 2)", "x & y", "a - (-b)", "f(a = 1, b = c(1, 2))",
                 "100000", "123456", "0.0001", "0.00012345", "1e15", "1234567.1", "1/3", "`my x` + 1", "x^-1", "-(x^2)", "(-x)^2",
                 "!(a & b)", "30000000000", "120000", "x %in% c(\"a\", \"b\")", "0.1 + 2.50", "a == b", "a != b", "x <= -1", "150000", "1e-300", "5e5", "510000")
write(lapply(expressions, function(text) list(text = text, spelled = deparse(parse(text = text)[[1]]))), "spelling.json")
