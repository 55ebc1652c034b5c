/*
 * Copyright (C) nginx-nango authors
 *
 * nango_require [environment] integration [id=$variable]
 *               [multiple=newest|refuse] [optional] [credentials] [proxy];
 *
 * Finds the caller's connection before a location answers, whatever answers
 * there.  In the precontent phase: after every access check, so that what
 * auth_request has established is known, and with no part in "satisfy".  (An
 * access handler of a dynamic module runs before auth_request, and its NGX_OK
 * would let "satisfy any" pass.)  It reads what is in the state and does not
 * wait for what is still on its way there.
 */

#include "ngx_http_nango_require.h"
#include "ngx_nango_shared.h"


/* Of one owner and integration, looked at for a valid one. */
#define NGX_HTTP_NANGO_REQUIRE_MAX  32

/* Of one that changes while its credentials are waited for. */
#define NGX_HTTP_NANGO_REQUIRE_LOOKS  5


static ngx_int_t ngx_http_nango_require_begin(ngx_http_request_t *r,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd);
static ngx_int_t ngx_http_nango_require_look(ngx_http_request_t *r,
    nango_reader_t *reader, void *data);
static nango_str_t ngx_http_nango_require_question(
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd,
    u_char *data);
static ngx_int_t ngx_http_nango_require_recall(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd, nango_memo_answer_t *answer);
static void ngx_http_nango_require_remember(nango_reader_t *reader,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd,
    ngx_int_t rc, nango_str_t question, uint32_t hash);
static ngx_int_t ngx_http_nango_require_find(ngx_http_request_t *r,
    nango_reader_t *reader, ngx_http_nango_require_t *rq,
    ngx_http_nango_required_t *rd);
static ngx_int_t ngx_http_nango_require_take(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd, nango_connection_t *c);
static ngx_int_t ngx_http_nango_require_then(ngx_http_request_t *r,
    ngx_int_t rc, void *data);
static ngx_int_t ngx_http_nango_require_invalid(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd);
static ngx_int_t ngx_http_nango_require_credentials(ngx_http_request_t *r,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd);
static void ngx_http_nango_require_fetched(ngx_nango_credential_t *c);
static ngx_int_t ngx_http_nango_require_credential(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd);
static void ngx_http_nango_require_cleanup(void *data);
static void ngx_http_nango_require_drop(ngx_nango_credential_t *c);
static ngx_int_t ngx_http_nango_require_pass(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd);


char *
ngx_http_nango_require(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    ngx_str_t                 *value, *name[2], s;
    ngx_uint_t                 i, n;
    ngx_http_nango_require_t  *rq;

    if (nlcf->require != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    rq = ngx_pcalloc(cf->pool, sizeof(ngx_http_nango_require_t));
    if (rq == NULL) {
        return NGX_CONF_ERROR;
    }

    nlcf->require = rq;

    value = cf->args->elts;
    n = 0;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "id=", 3) == 0) {

            s.data = value[i].data + 3;
            s.len = value[i].len - 3;

            if (rq->id || s.len == 0) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"id=\" %s",
                                   rq->id ? "is duplicate" : "needs a value");
                return NGX_CONF_ERROR;
            }

            rq->id = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));

            if (rq->id == NULL
                || ngx_http_nango_compile(cf, &s, rq->id) != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_strcmp(value[i].data, "multiple=newest") == 0) {
            rq->refuse = 0;
            continue;
        }

        if (ngx_strcmp(value[i].data, "multiple=refuse") == 0) {
            rq->refuse = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "optional") == 0) {
            rq->optional = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "credentials") == 0) {
            rq->credentials = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "proxy") == 0) {
            rq->proxy = 1;
            continue;
        }

        if (n == 2 || ngx_strlchr(value[i].data,
                                  value[i].data + value[i].len, '='))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"; there are \"id=\", "
                               "\"multiple=newest\", \"multiple=refuse\", "
                               "\"optional\", \"credentials\" and \"proxy\" "
                               "beside an environment and an integration",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        name[n++] = &value[i];
    }

    if (n == 0) {
        return "needs the id of an integration";
    }

    if (n == 2) {
        rq->environment_name = *name[0];
    }

    rq->file = cf->conf_file->file.name;
    rq->line = cf->conf_file->line;

    if (ngx_http_nango_compile(cf, name[n - 1], &rq->integration)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (rq->integration.lengths == NULL
        && !nango_integration_valid(ngx_nango_str(name[n - 1])))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid integration \"%V\"; an id has 1 to 255 "
                           "letters, digits, spaces and \"~:.@_-\"",
                           name[n - 1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_nango_require_merge(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf)
{
    ngx_uint_t                   own;
    ngx_http_nango_require_t    *rq;
    ngx_http_nango_main_conf_t  *nmcf;

    static ngx_str_t  name = ngx_string("nango_require");

    own = (conf->require != NGX_CONF_UNSET_PTR);

    ngx_conf_merge_ptr_value(conf->require, prev->require, NULL);

    rq = conf->require;

    if (rq == NULL) {
        return NGX_CONF_OK;
    }

    if (rq->proxy && ngx_http_nango_leads(cf)) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &rq->file, rq->line,
                       "what a provider answers can lead into internal "
                       "locations: add \"proxy_ignore_headers "
                       "X-Accel-Redirect;\"");
    }

    if (!own) {
        return NGX_CONF_OK;
    }

    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);

    if (rq->optional && rq->proxy) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &rq->file, rq->line,
                       "\"nango_require\" with \"proxy\" cannot be "
                       "\"optional\": there would be nothing to call Nango "
                       "with");
        return NGX_CONF_ERROR;
    }

    nmcf->proxies += rq->proxy;

    if (rq->credentials
        && ngx_nango_credential_add(cf, &ngx_http_nango_module) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rq->environment = ngx_http_nango_find_environment(cf,
                                  &rq->environment_name, &name, &rq->file,
                                  rq->line);

    if (rq->environment == NULL) {
        return NGX_CONF_ERROR;
    }

    if (nmcf->store.path.len == 0) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &rq->file, rq->line,
                       "\"nango_require\" needs a store: add "
                       "\"nango_store PATH;\" to the http block");
        return NGX_CONF_ERROR;
    }

    if (conf->owners == NULL) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &rq->file, rq->line,
                       "\"nango_require\" needs to know who is asking: add, "
                       "for instance, \"nango_owner end_user_id "
                       "$remote_user;\"");
        return NGX_CONF_ERROR;
    }

    if ((rq->credentials || rq->proxy)
        && rq->environment->authorization.len == 0)
    {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &rq->file, rq->line,
                       "\"nango_require\" needs an \"api_key\" in "
                       "nango_environment \"%V\" for \"%s\"",
                       &rq->environment->name,
                       rq->proxy ? "proxy" : "credentials");
        return NGX_CONF_ERROR;
    }

    ngx_http_nango_owners_check(cf, conf->owners, &name, &rq->file, rq->line);

    if (ngx_http_nango_returns(cf, 0)) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &rq->file, rq->line,
                       "\"nango_require\" does not guard what \"return\" "
                       "answers here, which comes before any check");
    }

    return NGX_CONF_OK;
}


ngx_uint_t
ngx_http_nango_require_proxies(ngx_http_nango_loc_conf_t *conf)
{
    return conf->require != NULL && conf->require->proxy;
}


ngx_int_t
ngx_http_nango_require_handler(ngx_http_request_t *r)
{
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_require_t   *rq;
    ngx_http_nango_loc_conf_t  *nlcf;
    ngx_http_nango_required_t  *rd;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    rq = nlcf->require;

    if (rq == NULL) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_nango_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rd = ctx->required;

    if (rd == NULL) {
        rd = ngx_pcalloc(r->pool, sizeof(ngx_http_nango_required_t));
        if (rd == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ctx->required = rd;

        return ngx_http_nango_require_begin(r, rq, rd);
    }

    switch (rd->state) {

    case NGX_HTTP_NANGO_PASSED:
        return NGX_DECLINED;

    default:
        /* An event of the client's connection while it waits. */
        return NGX_DONE;
    }
}


static ngx_int_t
ngx_http_nango_require_begin(ngx_http_request_t *r,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd)
{
    ngx_int_t  rc;
    ngx_str_t  s;

    if (ngx_array_init(&rd->owners, r->pool, NANGO_TAGS_MAX,
                       sizeof(nango_tag_t))
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rq->optional) {
        rc = ngx_http_nango_owners_known(r, &rd->owners);

        /* An identity that can be no tag has no connections. */

        if (rc == NGX_DECLINED || rc == NGX_ABORT) {
            return ngx_http_nango_require_pass(r, rd);
        }

        if (rc != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

    } else if (ngx_http_nango_owners(r, &rd->owners, &rc) != NGX_OK) {
        rd->state = NGX_HTTP_NANGO_ANSWERED;
        ngx_http_finalize_request(r, rc);
        return NGX_DONE;
    }

    if (ngx_http_complex_value(r, &rq->integration, &s) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rd->integration = ngx_nango_str(&s);

    if (rq->id) {

        if (ngx_http_complex_value(r, rq->id, &s) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (s.len) {
            /* An id of another form is one that nobody has. */

            if (nango_unhex(rd->id, NANGO_KEY_LEN, ngx_nango_str(&s)) != 0) {
                ngx_memzero(rd->id, NANGO_KEY_LEN);
            }

            rd->by_id = 1;
        }
    }

    rd->look.look = ngx_http_nango_require_look;
    rd->look.then = ngx_http_nango_require_then;
    rd->look.data = rd;
    rd->look.now = 1;
    rd->look.glance = 1;
    rd->look.busy = 1;

    rc = ngx_http_nango_look(r, &rd->look);

    if (rc == NGX_AGAIN) {
        rd->resume = 1;
        return NGX_DONE;
    }

    if (rc == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    rd->state = NGX_HTTP_NANGO_ANSWERED;

    ngx_http_finalize_request(r, rc);

    return NGX_DONE;
}


/* NGX_OK; NGX_DECLINED: none; NGX_ABORT: several; NGX_BUSY; NGX_ERROR. */

static ngx_int_t
ngx_http_nango_require_look(ngx_http_request_t *r, nango_reader_t *reader,
    void *data)
{
    ngx_http_nango_required_t *rd = data;

    u_char                      buf[NANGO_MEMO_MAX];
    uint32_t                    hash;
    ngx_int_t                   rc;
    nango_str_t                 question;
    nango_memo_t               *memo;
    nango_connection_t          c;
    nango_memo_answer_t         answer;
    ngx_http_nango_require_t   *rq;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    rq = nlcf->require;

    if (rd->by_id) {
        rc = ngx_http_nango_find(r, reader, rq->environment, &rd->owners,
                                 rd->id, &c);
        if (rc != NGX_OK) {
            return rc;
        }

        if (!nango_str_eq(c.integration, rd->integration)) {
            return NGX_DECLINED;
        }

        return ngx_http_nango_require_take(r, rd, &c);
    }

    hash = 0;
    memo = ngx_nango_store_memo();
    question = nango_str(NULL, 0);

    /*
     * Credentials are of a version of the connection that counts what is no
     * change to others.
     */

    if (memo && !rq->credentials) {
        question = ngx_http_nango_require_question(rq, rd, buf);
    }

    if (question.len) {
        hash = ngx_murmur_hash2((u_char *) question.data, question.len);

        if (nango_memo_find(memo, reader, question, hash, &answer)) {
            return ngx_http_nango_require_recall(r, rd, &answer);
        }
    }

    rc = ngx_http_nango_require_find(r, reader, rq, rd);

    if (question.len) {
        ngx_http_nango_require_remember(reader, rq, rd, rc, question, hash);
    }

    return rc;
}


/* All that the answer depends on.  Of no length: too much of it. */

static nango_str_t
ngx_http_nango_require_question(ngx_http_nango_require_t *rq,
    ngx_http_nango_required_t *rd, u_char *data)
{
    u_char       *p, *last;
    ngx_uint_t    i;
    nango_tag_t  *owner;
    nango_str_t   parts[2 + 2 * NANGO_TAGS_MAX];

    owner = rd->owners.elts;

    parts[0] = ngx_nango_str(&rq->environment->name);
    parts[1] = rd->integration;

    for (i = 0; i < rd->owners.nelts; i++) {
        parts[2 + 2 * i] = owner[i].name;
        parts[3 + 2 * i] = owner[i].value;
    }

    p = data;
    last = data + NANGO_MEMO_MAX;

    *p++ = (u_char) rq->refuse;

    for (i = 0; i < 2 + 2 * rd->owners.nelts; i++) {

        /* A length that fits here fits into a byte. */

        if (parts[i].len >= (size_t) (last - p)) {
            return nango_str(NULL, 0);
        }

        *p++ = (u_char) parts[i].len;

        if (parts[i].len) {
            p = ngx_cpymem(p, parts[i].data, parts[i].len);
        }
    }

    return nango_str(data, p - data);
}


static ngx_int_t
ngx_http_nango_require_recall(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd, nango_memo_answer_t *answer)
{
    if (answer->status == NANGO_STATUS_NONE) {
        return NGX_DECLINED;
    }

    ngx_memcpy(rd->key, answer->key, NANGO_KEY_LEN);

    rd->status = answer->status;
    rd->connection_id = answer->connection_id;
    rd->provider = answer->provider;

    if (ngx_http_nango_copy(r->pool, &rd->connection_id) != NGX_OK
        || ngx_http_nango_copy(r->pool, &rd->provider) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_nango_require_remember(nango_reader_t *reader,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd,
    ngx_int_t rc, nango_str_t question, uint32_t hash)
{
    u_char                key[NANGO_KEY_LEN];
    nango_tag_t          *owner;
    nango_memo_answer_t   answer;

    ngx_memzero(&answer, sizeof(nango_memo_answer_t));

    if (rc == NGX_OK) {
        answer.status = rd->status;
        answer.connection_id = rd->connection_id;
        answer.provider = rd->provider;
        ngx_memcpy(answer.key, rd->key, NANGO_KEY_LEN);

    } else if (rc != NGX_DECLINED) {
        return;
    }

    owner = rd->owners.elts;

    if (nango_owner_key(key, ngx_nango_str(&rq->environment->name),
                        owner->name, owner->value)
        != 0)
    {
        return;
    }

    nango_memo_keep(ngx_nango_store_memo(), reader, question, hash, key,
                    &answer);
}


/* Of several the newest that is valid, else the newest. */

static ngx_int_t
ngx_http_nango_require_find(ngx_http_request_t *r, nango_reader_t *reader,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd)
{
    int                  rc;
    ngx_int_t            ok;
    ngx_uint_t           n;
    nango_owned_t       *owned;
    nango_error_t        err;
    nango_connection_t   c;

    owned = nango_owned_open(reader, ngx_nango_str(&rq->environment->name),
                             rd->owners.elts, rd->owners.nelts, 0, &err);
    if (owned == NULL) {
        return ngx_http_nango_unreadable(r, &err);
    }

    nango_owned_only(owned, rd->integration, NGX_HTTP_NANGO_FIND_MAX);

    rc = 0;
    ok = NGX_DECLINED;

    for (n = 0; n < NGX_HTTP_NANGO_REQUIRE_MAX; n++) {

        rc = nango_owned_next(owned, &c, &err);

        if (rc != 1) {
            break;
        }

        if (n && rq->refuse) {
            ok = NGX_ABORT;
            break;
        }

        if (n == 0 || c.status == NANGO_STATUS_VALID) {
            ok = ngx_http_nango_require_take(r, rd, &c);
        }

        if (ok != NGX_OK || (c.status == NANGO_STATUS_VALID && !rq->refuse)) {
            break;
        }
    }

    nango_owned_close(owned);

    return (rc == -1) ? ngx_http_nango_unreadable(r, &err) : ok;
}


static ngx_int_t
ngx_http_nango_require_take(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd, nango_connection_t *c)
{
    nango_memo_answer_t  answer;

    ngx_memcpy(answer.key, c->key, NANGO_KEY_LEN);

    answer.status = c->status;
    answer.connection_id = c->connection_id;
    answer.provider = c->provider;

    rd->version = c->updated_sequence * 1000003 + c->repeats;

    return ngx_http_nango_require_recall(r, rd, &answer);
}


/*
 * Called in the handler, or later by an event.  NGX_DECLINED, only in the
 * handler: the request goes on; NGX_AGAIN: it goes on, or will; anything else
 * is what an answer returned.
 */

static ngx_int_t
ngx_http_nango_require_then(ngx_http_request_t *r, ngx_int_t rc, void *data)
{
    ngx_http_nango_required_t *rd = data;

    ngx_http_nango_require_t   *rq;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    rq = nlcf->require;

    if (rd->waited
        && (rc != NGX_OK || rd->status != NANGO_STATUS_VALID
            || ngx_memcmp(rd->credential->key, rd->key, NANGO_KEY_LEN) != 0))
    {
        rd->waited = 0;
        ngx_http_nango_require_drop(rd->credential);
    }

    if (rc == NGX_OK && rq->proxy
        && (!ngx_http_nango_proxy_says(rd->connection_id)
            || !ngx_http_nango_proxy_says(rd->integration)))
    {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: a connection cannot be used with Nango's proxy: "
                      "its id is none that a header can say");
        rc = NGX_DECLINED;
    }

    if (rc == NGX_OK
        && (rd->status == NANGO_STATUS_VALID || rq->optional))
    {
        if (rq->credentials && rd->status == NANGO_STATUS_VALID) {
            return ngx_http_nango_require_credentials(r, rq, rd);
        }

        return ngx_http_nango_require_pass(r, rd);
    }

    if (rq->optional && rc != NGX_ERROR) {
        rd->status = NANGO_STATUS_NONE;
        return ngx_http_nango_require_pass(r, rd);
    }

    rd->state = NGX_HTTP_NANGO_ANSWERED;

    switch (rc) {

    case NGX_OK:
        return ngx_http_nango_require_invalid(r, rd);

    case NGX_DECLINED:
        return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND,
                                    "connection_not_found",
                                    "There is no such connection");

    case NGX_ABORT:
        return ngx_http_nango_error(r, NGX_HTTP_CONFLICT,
                                    "connection_ambiguous",
                                    "There are several; choose one by its "
                                    "id");

    case NGX_BUSY:
        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "store_unavailable",
                                    "Connections cannot be read now");

    default: /* NGX_ERROR */
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
}


static ngx_int_t
ngx_http_nango_require_credentials(ngx_http_request_t *r,
    ngx_http_nango_require_t *rq, ngx_http_nango_required_t *rd)
{
    ngx_http_cleanup_t      *cln;
    ngx_nango_credential_t  *c;

    c = rd->credential;

    if (rd->waited) {
        rd->waited = 0;
        return ngx_http_nango_require_credential(r, rd);
    }

    if (c == NULL) {

        c = ngx_pcalloc(r->pool, sizeof(ngx_nango_credential_t));
        cln = ngx_http_cleanup_add(r, 0);

        if (c == NULL || cln == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        c->data = ngx_pnalloc(r->pool, NGX_NANGO_CREDENTIAL_MAX);
        if (c->data == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        cln->handler = ngx_http_nango_require_cleanup;
        cln->data = c;

        rd->credential = c;

    } else if (rd->version <= c->version
               || ++rd->looks == NGX_HTTP_NANGO_REQUIRE_LOOKS)
    {
        /* There is no newer one, or there always is. */
        c->insist = 1;
    }

    c->environment = rq->environment;
    ngx_memcpy(c->key, rd->key, NANGO_KEY_LEN);
    c->version = rd->version;
    c->integration = rd->integration;
    c->connection_id = rd->connection_id;
    c->handler = ngx_http_nango_require_fetched;
    c->context = r;

    if (ngx_nango_credential_get(c) == NGX_AGAIN) {
        rd->state = NGX_HTTP_NANGO_FETCHING;
        return NGX_AGAIN;
    }

    return ngx_http_nango_require_credential(r, rd);
}


static void
ngx_http_nango_require_fetched(ngx_nango_credential_t *c)
{
    ngx_int_t                   rc;
    ngx_http_request_t         *r;
    ngx_http_nango_ctx_t       *ctx;
    ngx_http_nango_loc_conf_t  *nlcf;
    ngx_http_nango_required_t  *rd;

    r = c->context;

    ngx_http_set_log_request(r->connection->log, r);

    ctx = ngx_http_get_module_ctx(r, ngx_http_nango_module);
    rd = ctx->required;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (c->failure == NGX_NANGO_CREDENTIAL_OK
        || (c->failure != NGX_NANGO_CREDENTIAL_CHANGED
            && nlcf->require->optional))
    {
        /* Nango may have known before us whose it is now. */

        rd->waited = 1;
        rd->state = NGX_HTTP_NANGO_LOOKING;

        rc = ngx_http_nango_look(r, &rd->look);

    } else {
        rc = ngx_http_nango_require_credential(r, rd);
    }

    if (rc != NGX_AGAIN) {
        ngx_http_nango_finish(r, rc);
    }
}


static ngx_int_t
ngx_http_nango_require_credential(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd)
{
    time_t                      seconds;
    ngx_http_nango_require_t   *rq;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    rq = nlcf->require;

    if (rd->credential->failure == NGX_NANGO_CREDENTIAL_CHANGED) {

        /* It may be invalid, or not the caller's any more. */

        rd->state = NGX_HTTP_NANGO_LOOKING;

        return ngx_http_nango_look(r, &rd->look);
    }

    if (rd->credential->failure == NGX_NANGO_CREDENTIAL_OK || rq->optional) {
        return ngx_http_nango_require_pass(r, rd);
    }

    rd->state = NGX_HTTP_NANGO_ANSWERED;

    switch (rd->credential->failure) {

    case NGX_NANGO_CREDENTIAL_INVALID:
        return ngx_http_nango_require_invalid(r, rd);

    case NGX_NANGO_CREDENTIAL_MISSING:
        return ngx_http_nango_error(r, NGX_HTTP_NOT_FOUND,
                                    "connection_not_found",
                                    "There is no such connection");

    case NGX_NANGO_CREDENTIAL_LIMITED:
        seconds = ngx_nango_account_blocked(&rq->environment->account);
        return ngx_http_nango_rate_limited(r, seconds);

    case NGX_NANGO_CREDENTIAL_TIMEOUT:
        return ngx_http_nango_error(r, NGX_HTTP_GATEWAY_TIME_OUT,
                                    "nango_timeout",
                                    "Nango did not answer in time");

    case NGX_NANGO_CREDENTIAL_UNAVAILABLE:
        return ngx_http_nango_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "nango_unavailable",
                                    "Nango cannot be reached now");

    default: /* NGX_NANGO_CREDENTIAL_ERROR */
        return ngx_http_nango_error(r, NGX_HTTP_BAD_GATEWAY, "nango_error",
                                    "Nango did not say the credentials");
    }
}


/* What was copied for the request ends with it. */

static void
ngx_http_nango_require_cleanup(void *data)
{
    ngx_nango_credential_t *c = data;

    ngx_nango_credential_cancel(c);
    ngx_http_nango_require_drop(c);
}


static void
ngx_http_nango_require_drop(ngx_nango_credential_t *c)
{
    if (c->len) {
        ngx_memzero(c->data, c->len);
        c->len = 0;
    }
}


static ngx_int_t
ngx_http_nango_require_pass(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd)
{
    ngx_connection_t           *c;
    ngx_http_nango_require_t   *rq;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);
    rq = nlcf->require;

    if (rq->proxy
        && ngx_http_nango_proxy(r, rq->environment, rd->integration,
                                rd->connection_id)
           != NGX_OK)
    {
        rd->state = NGX_HTTP_NANGO_ANSWERED;
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rd->state = NGX_HTTP_NANGO_PASSED;

    if (!rd->resume) {
        return NGX_DECLINED;
    }

    c = r->connection;

    ngx_http_core_run_phases(r);
    ngx_http_run_posted_requests(c);

    return NGX_AGAIN;
}


/* With the id that nango_reconnect takes. */

static ngx_int_t
ngx_http_nango_require_invalid(ngx_http_request_t *r,
    ngx_http_nango_required_t *rd)
{
    u_char     hex[2 * NANGO_KEY_LEN];
    ngx_str_t  body;

    static u_char  before[] = "{\"error\":{\"code\":\"connection_invalid\","
                              "\"message\":\"The connection needs to be "
                              "authorised again\"},\"id\":\"";

    body.data = ngx_pnalloc(r->pool, sizeof(before) + sizeof(hex) + 2);
    if (body.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    nango_hex(hex, rd->key, NANGO_KEY_LEN);

    body.len = ngx_sprintf(body.data, "%s%*s\"}", before, sizeof(hex), hex)
               - body.data;

    return ngx_http_nango_error_body(r, NGX_HTTP_CONFLICT,
                                     "connection_invalid", &body);
}
