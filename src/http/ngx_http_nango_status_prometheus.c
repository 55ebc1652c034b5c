/*
 * Copyright (C) nginx-nango authors
 *
 * nango_status for Prometheus, in its text format 0.0.4: all samples of a
 * metric below its HELP and TYPE, in an order that stays.
 */

#include "ngx_http_nango_status.h"
#include "ngx_http_nango_text.h"

#include "nango_utf8.h"


static void ngx_http_nango_metric(ngx_http_nango_text_t *t,
    const ngx_http_nango_fact_t *fact);
static void ngx_http_nango_metric_label(ngx_http_nango_text_t *t,
    const char *name, ngx_str_t *value);
static void ngx_http_nango_metric_value(ngx_http_nango_text_t *t,
    const ngx_http_nango_fact_t *fact, void *base);


ngx_int_t
ngx_http_nango_status_prometheus(ngx_http_request_t *r,
    ngx_http_nango_status_t *st, ngx_str_t *text)
{
    ngx_uint_t                    i;
    const char                   *last;
    ngx_http_nango_text_t         t;
    const ngx_http_nango_fact_t  *fact;
    ngx_http_nango_status_env_t  *env;
    ngx_http_nango_status_sub_t  *sub;

    ngx_http_nango_text_begin(&t, r->pool);

    ngx_http_nango_text(&t, "# HELP nango_build_info The module's version.\n"
                            "# TYPE nango_build_info gauge\n"
                            "nango_build_info{version=\"%s\"} 1\n",
                        NGX_NANGO_VERSION);

    last = "";

    for (fact = ngx_http_nango_facts; fact->name; fact++) {

        if (fact->metric == NULL || (fact->store && !st->open)) {
            continue;
        }

        if (strcmp(fact->metric, last) != 0) {
            ngx_http_nango_metric(&t, fact);
            last = fact->metric;
        }

        ngx_http_nango_text(&t, "%s", fact->metric);

        if (fact->label) {
            ngx_http_nango_text(&t, "{%s}", fact->label);
        }

        ngx_http_nango_metric_value(&t, fact, st);
    }

    env = st->environments.elts;

    for (fact = ngx_http_nango_env_facts; fact->name; fact++) {

        if (fact->metric == NULL || (fact->store && !st->open)) {
            continue;
        }

        ngx_http_nango_metric(&t, fact);

        for (i = 0; i < st->environments.nelts; i++) {
            ngx_http_nango_text(&t, "%s{", fact->metric);
            ngx_http_nango_metric_label(&t, "environment", &env[i].name);
            ngx_http_nango_text(&t, "}");
            ngx_http_nango_metric_value(&t, fact, &env[i]);
        }
    }

    sub = st->subscribers.elts;

    for (fact = ngx_http_nango_sub_facts; fact->name; fact++) {

        if (fact->metric == NULL) {
            continue;
        }

        last = NULL;

        for (i = 0; i < st->subscribers.nelts; i++) {

            if (fact->store && !sub[i].known) {
                continue;
            }

            if (last == NULL) {
                ngx_http_nango_metric(&t, fact);
                last = fact->metric;
            }

            ngx_http_nango_text(&t, "%s{", fact->metric);
            ngx_http_nango_metric_label(&t, "environment",
                                        &sub[i].environment);
            ngx_http_nango_text(&t, ",");
            ngx_http_nango_metric_label(&t, "subscriber", &sub[i].name);
            ngx_http_nango_text(&t, "}");
            ngx_http_nango_metric_value(&t, fact, &sub[i]);
        }
    }

    return ngx_http_nango_text_end(&t, text);
}


static void
ngx_http_nango_metric(ngx_http_nango_text_t *t,
    const ngx_http_nango_fact_t *fact)
{
    ngx_http_nango_text(t, "# HELP %s %s\n# TYPE %s %s\n", fact->metric,
                        fact->help, fact->metric, fact->type);
}


/*
 * Names of the configuration need no escaping; what a damaged page may hold
 * must not cost all the others.
 */

static void
ngx_http_nango_metric_label(ngx_http_nango_text_t *t, const char *name,
    ngx_str_t *value)
{
    u_char     *p, *last;
    ngx_uint_t  valid;

    valid = nango_utf8_valid(ngx_nango_str(value));
    last = value->data + value->len;

    ngx_http_nango_text(t, "%s=\"", name);

    for (p = value->data; p < last; p++) {

        if (*p == '\n') {
            ngx_http_nango_text_add(t, (u_char *) "\\n", 2);
            continue;
        }

        if (*p >= 0x80 && !valid) {
            ngx_http_nango_text_add(t, (u_char *) "?", 1);
            continue;
        }

        if (*p == '\\' || *p == '"') {
            ngx_http_nango_text_add(t, (u_char *) "\\", 1);
        }

        ngx_http_nango_text_add(t, p, 1);
    }

    ngx_http_nango_text_add(t, (u_char *) "\"", 1);
}


static void
ngx_http_nango_metric_value(ngx_http_nango_text_t *t,
    const ngx_http_nango_fact_t *fact, void *base)
{
    uint64_t  n;

    n = ngx_http_nango_fact(fact, base);

    if (fact->kind == NGX_HTTP_NANGO_FACT_TIME) {
        ngx_http_nango_text(t, " %uL.%03uL\n", n / 1000, n % 1000);

    } else {
        ngx_http_nango_text(t, " %uL\n", n);
    }
}
