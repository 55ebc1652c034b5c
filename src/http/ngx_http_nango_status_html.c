/*
 * Copyright (C) nginx-nango authors
 *
 * nango_status as a page: the same numbers to read.  No script, nothing from
 * elsewhere, and everything that is not ours is escaped.
 */

#include "ngx_http_nango_status.h"
#include "ngx_http_nango_text.h"


static void ngx_http_nango_page_head(ngx_http_nango_text_t *t,
    const char *title, const ngx_http_nango_fact_t *facts, const char *first,
    const char *second);
static void ngx_http_nango_page_string(ngx_http_nango_text_t *t,
    const u_char *data, size_t len);
static void ngx_http_nango_page_value(ngx_http_nango_text_t *t,
    const ngx_http_nango_fact_t *fact, void *base, ngx_uint_t known);


ngx_int_t
ngx_http_nango_status_html(ngx_http_request_t *r, ngx_http_nango_status_t *st,
    ngx_str_t *text)
{
    ngx_uint_t                    i;
    const char                   *section;
    ngx_http_nango_text_t         t;
    const ngx_http_nango_fact_t  *fact;
    ngx_http_nango_status_env_t  *env;
    ngx_http_nango_status_sub_t  *sub;

    ngx_http_nango_text_begin(&t, r->pool);

    ngx_http_nango_text(&t,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<title>nginx-nango</title><style>"
        "body{font:14px/1.4 sans-serif;margin:2em}"
        "table{border-collapse:collapse;margin:0 0 1.5em}"
        "caption{text-align:left;font-weight:bold;padding:.3em 0}"
        "th,td{border:1px solid #bbb;padding:.2em .6em;text-align:right}"
        "th:first-child{text-align:left}</style></head>\n"
        "<body><h1>nginx-nango %s</h1>\n", NGX_NANGO_VERSION);

    if (st->troubled) {
        ngx_http_nango_text(&t, "<p><strong>The store: %s</strong>",
                            ngx_http_nango_trouble_word(st->trouble.code));

        if (st->manage) {
            ngx_http_nango_text(&t, " ");
            ngx_http_nango_page_string(&t, (u_char *) st->trouble.text,
                                       ngx_strlen(st->trouble.text));
        }

        ngx_http_nango_text(&t, "</p>\n");
    }

    ngx_http_nango_text(&t, "<table><caption>nginx</caption>\n");
    section = "";

    for (fact = ngx_http_nango_facts; fact->name; fact++) {

        if (fact->section && strcmp(fact->section, section) != 0) {
            section = fact->section;
            ngx_http_nango_text(&t, "</table>\n<table><caption>%s</caption>\n",
                                section);
        }

        ngx_http_nango_text(&t, "<tr><th>%s</th>", fact->name);
        ngx_http_nango_page_value(&t, fact, st, st->open);
        ngx_http_nango_text(&t, "</tr>\n");
    }

    ngx_http_nango_text(&t, "</table>\n");

    ngx_http_nango_page_head(&t, "environments", ngx_http_nango_env_facts,
                             "environment", NULL);

    env = st->environments.elts;

    for (i = 0; i < st->environments.nelts; i++) {
        ngx_http_nango_text(&t, "<tr><th>");
        ngx_http_nango_page_string(&t, env[i].name.data, env[i].name.len);
        ngx_http_nango_text(&t, "</th>");

        for (fact = ngx_http_nango_env_facts; fact->name; fact++) {
            ngx_http_nango_page_value(&t, fact, &env[i], st->open);
        }

        ngx_http_nango_text(&t, "</tr>\n");
    }

    ngx_http_nango_text(&t, "</table>\n");

    ngx_http_nango_page_head(&t, "subscribers", ngx_http_nango_sub_facts,
                             "subscriber", "last error");

    sub = st->subscribers.elts;

    for (i = 0; i < st->subscribers.nelts; i++) {
        ngx_http_nango_text(&t, "<tr><th>");
        ngx_http_nango_page_string(&t, sub[i].environment.data,
                                   sub[i].environment.len);
        ngx_http_nango_text(&t, " / ");
        ngx_http_nango_page_string(&t, sub[i].name.data, sub[i].name.len);
        ngx_http_nango_text(&t, "</th><td>%s</td>",
                            ngx_http_nango_delivery_word(sub[i].live.error));

        for (fact = ngx_http_nango_sub_facts; fact->name; fact++) {
            ngx_http_nango_page_value(&t, fact, &sub[i], sub[i].known);
        }

        ngx_http_nango_text(&t, "</tr>\n");
    }

    ngx_http_nango_text(&t, "</table>\n</body></html>\n");

    return ngx_http_nango_text_end(&t, text);
}


static void
ngx_http_nango_page_head(ngx_http_nango_text_t *t, const char *title,
    const ngx_http_nango_fact_t *facts, const char *first, const char *second)
{
    const ngx_http_nango_fact_t  *fact;

    ngx_http_nango_text(t, "<table><caption>%s</caption>\n<tr><th>%s</th>",
                        title, first);

    if (second) {
        ngx_http_nango_text(t, "<th>%s</th>", second);
    }

    for (fact = facts; fact->name; fact++) {
        ngx_http_nango_text(t, "<th>%s</th>", fact->name);
    }

    ngx_http_nango_text(t, "</tr>\n");
}


static void
ngx_http_nango_page_string(ngx_http_nango_text_t *t, const u_char *data,
    size_t len)
{
    size_t       i;
    const char  *escaped;

    for (i = 0; i < len; i++) {

        switch (data[i]) {

        case '<':
            escaped = "&lt;";
            break;

        case '>':
            escaped = "&gt;";
            break;

        case '&':
            escaped = "&amp;";
            break;

        case '"':
            escaped = "&quot;";
            break;

        default:
            ngx_http_nango_text_add(t, &data[i], 1);
            continue;
        }

        ngx_http_nango_text_add(t, (u_char *) escaped, ngx_strlen(escaped));
    }
}


static void
ngx_http_nango_page_value(ngx_http_nango_text_t *t,
    const ngx_http_nango_fact_t *fact, void *base, ngx_uint_t known)
{
    uint64_t  n;
    ngx_tm_t  tm;

    n = ngx_http_nango_fact(fact, base);

    if ((fact->store && !known)
        || (fact->kind == NGX_HTTP_NANGO_FACT_TIME && n == 0))
    {
        ngx_http_nango_text(t, "<td>-</td>");
        return;
    }

    switch (fact->kind) {

    case NGX_HTTP_NANGO_FACT_FLAG:
        ngx_http_nango_text(t, "<td>%s</td>", n ? "yes" : "no");
        break;

    case NGX_HTTP_NANGO_FACT_TIME:
        ngx_gmtime((time_t) (n / 1000), &tm);
        ngx_http_nango_text(t, "<td>%4d-%02d-%02d %02d:%02d:%02dZ</td>",
                            tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                            tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec);
        break;

    default:
        ngx_http_nango_text(t, "<td>%uL</td>", n);
        break;
    }
}
