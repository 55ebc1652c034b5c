/*
 * Copyright (C) nginx-nango authors
 *
 * nango_tag tag value;
 *
 * Further tags of a session, merged by name down the levels.  They decide
 * nothing, so an empty one is left out, and one that Nango would refuse is
 * left out with a warning rather than failing the session.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_tag.h"


static char *ngx_http_nango_tag_variables(ngx_conf_t *cf,
    ngx_http_nango_tag_t *tag, ngx_str_t *value, ngx_uint_t owner);
static char *ngx_http_nango_tag_source(ngx_conf_t *cf, ngx_str_t *name);


char *
ngx_http_nango_tag(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    if (nlcf->tags == NULL) {
        nlcf->tags = ngx_array_create(cf->pool, 4,
                                      sizeof(ngx_http_nango_tag_t));
        if (nlcf->tags == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_nango_tag_add(cf, nlcf->tags, 0);
}


char *
ngx_http_nango_tag_add(ngx_conf_t *cf, ngx_array_t *tags, ngx_uint_t owner)
{
    ngx_str_t             *value, name;
    const char            *error;
    ngx_http_nango_tag_t  *tag;

    value = cf->args->elts;

    name.len = value[1].len;
    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_strlow(name.data, value[1].data, name.len);

    error = nango_tag_name_error(ngx_nango_str(&name));

    if (error) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" of a tag: it %s", &value[1],
                           error);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_nango_tag_find(tags, &name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the tag \"%V\" is given twice", &name);
        return NGX_CONF_ERROR;
    }

    if (tags->nelts == NANGO_TAGS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d tags, which Nango refuses",
                           NANGO_TAGS_MAX);
        return NGX_CONF_ERROR;
    }

    tag = ngx_array_push(tags);
    if (tag == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(tag, sizeof(ngx_http_nango_tag_t));

    tag->name = name;

    if (ngx_http_nango_compile(cf, &value[2], &tag->value) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (tag->value.lengths == NULL) {
        error = nango_tag_value_error(ngx_nango_str(&name),
                                      ngx_nango_str(&value[2]));
        if (error) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value of the tag \"%V\": it %s", &name,
                               error);
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_nango_tag_variables(cf, tag, &value[2], owner);
}


ngx_http_nango_tag_t *
ngx_http_nango_tag_find(ngx_array_t *tags, ngx_str_t *name)
{
    ngx_uint_t             i;
    ngx_http_nango_tag_t  *tag;

    tag = tags->elts;

    for (i = 0; i < tags->nelts; i++) {
        if (tag[i].name.len == name->len
            && ngx_memcmp(tag[i].name.data, name->data, name->len) == 0)
        {
            return &tag[i];
        }
    }

    return NULL;
}


/*
 * Finds each variable of a value and compiles it alone.  The syntax is
 * nginx's: $name, ${name}, $1.
 */

static char *
ngx_http_nango_tag_variables(ngx_conf_t *cf, ngx_http_nango_tag_t *tag,
    ngx_str_t *value, ngx_uint_t owner)
{
    char                      *rv;
    u_char                    *p, *last;
    ngx_str_t                  name, text;
    ngx_http_complex_value_t  *cv;

    tag->variables = ngx_array_create(cf->pool, 1,
                                      sizeof(ngx_http_complex_value_t));
    if (tag->variables == NULL) {
        return NGX_CONF_ERROR;
    }

    p = value->data;
    last = p + value->len;

    while (p < last) {

        if (*p++ != '$') {
            continue;
        }

        if (p < last && *p == '{') {
            p++;
        }

        name.data = p;

        while (p < last
               && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
                   || (*p >= '0' && *p <= '9') || *p == '_'))
        {
            p++;

            /* A capture has one digit. */

            if (name.data[0] >= '1' && name.data[0] <= '9') {
                break;
            }
        }

        name.len = p - name.data;

        if (name.len == sizeof("remote_user") - 1
            && ngx_strncasecmp(name.data, (u_char *) "remote_user", name.len)
               == 0)
        {
            tag->remote_user = 1;
        }

        if (owner) {
            rv = ngx_http_nango_tag_source(cf, &name);
            if (rv != NGX_CONF_OK) {
                return rv;
            }
        }

        text.data = ngx_pnalloc(cf->pool, name.len + sizeof("${}"));
        if (text.data == NULL) {
            return NGX_CONF_ERROR;
        }

        if (name.data[0] >= '1' && name.data[0] <= '9') {
            text.len = ngx_sprintf(text.data, "$%V%Z", &name) - text.data - 1;

        } else {
            text.len = ngx_sprintf(text.data, "${%V}%Z", &name) - text.data
                       - 1;
        }

        cv = ngx_array_push(tag->variables);
        if (cv == NULL) {
            return NGX_CONF_ERROR;
        }

        if (ngx_http_nango_compile(cf, &text, cv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (owner && tag->variables->nelts == 0) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "nango_owner \"%V\" is the same for everybody: all "
                           "callers share these connections", &tag->name);
    }

    return NGX_CONF_OK;
}


/*
 * What the caller itself writes does not say who it is.  Its query and body
 * never do; headers, the URI and what a regular expression took from it can,
 * where something in front has checked them.
 */

static char *
ngx_http_nango_tag_source(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t  i;

    static ngx_str_t  refused[] = {
        ngx_string("arg_"),
        ngx_string("args"),
        ngx_string("query_string"),
        ngx_string("cookie_"),
        ngx_string("request_body"),
        ngx_null_string
    };

    static ngx_str_t  uri[] = {
        ngx_string("uri"),
        ngx_string("document_uri"),
        ngx_string("request"),
        ngx_string("request_uri"),
        ngx_string("request_filename"),
        ngx_string("host"),
        ngx_string("ssl_server_name"),
        ngx_null_string
    };

    for (i = 0; refused[i].len; i++) {
        if (name->len >= refused[i].len
            && ngx_strncasecmp(name->data, refused[i].data, refused[i].len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"$%V\" in nango_owner: whoever sends the "
                               "request could be anybody with it; use what "
                               "auth_request, a JWT module, mutual TLS or "
                               "auth_basic has established", name);
            return NGX_CONF_ERROR;
        }
    }

    if (name->len > 5
        && ngx_strncasecmp(name->data, (u_char *) "http_", 5) == 0)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"$%V\" in nango_owner is safe only if a proxy in "
                           "front sets this header and removes the client's "
                           "own", name);
        return NGX_CONF_OK;
    }

    for (i = 0; uri[i].len; i++) {
        if (name->len == uri[i].len
            && ngx_strncasecmp(name->data, uri[i].data, uri[i].len) == 0)
        {
            break;
        }
    }

    if (uri[i].len
        || (name->len && name->data[0] >= '1' && name->data[0] <= '9'))
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"$%V\" in nango_owner comes from the URI that "
                           "the client has sent; it is safe only if something "
                           "else checks that it may ask for this one", name);
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_nango_compile(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t *cv)
{
    ngx_http_compile_complex_value_t  ccv;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ngx_memzero(cv, sizeof(ngx_http_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = cv;

    return ngx_http_compile_complex_value(&ccv);
}


char *
ngx_http_nango_tags_merge(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf)
{
    ngx_uint_t             i;
    ngx_array_t           *tags;
    ngx_http_nango_tag_t  *tag, *own;

    if (prev->tags && prev->tags->nelts) {

        if (conf->tags == NULL) {
            conf->tags = prev->tags;

        } else {
            /* A copy: the level above is also that of other locations. */

            tags = ngx_array_create(cf->pool,
                                    conf->tags->nelts + prev->tags->nelts,
                                    sizeof(ngx_http_nango_tag_t));
            if (tags == NULL) {
                return NGX_CONF_ERROR;
            }

            tag = conf->tags->elts;

            for (i = 0; i < conf->tags->nelts; i++) {
                own = ngx_array_push(tags);
                *own = tag[i];
            }

            tag = prev->tags->elts;

            for (i = 0; i < prev->tags->nelts; i++) {
                if (ngx_http_nango_tag_find(conf->tags, &tag[i].name)
                    == NULL)
                {
                    own = ngx_array_push(tags);
                    *own = tag[i];
                }
            }

            conf->tags = tags;
        }
    }

    if (conf->endpoint.handler == NULL || conf->owners == NULL) {
        return NGX_CONF_OK;
    }

    if (conf->tags) {
        tag = conf->tags->elts;

        for (i = 0; i < conf->tags->nelts; i++) {
            if (ngx_http_nango_tag_find(conf->owners, &tag[i].name)) {
                ngx_http_nango_conf_error(NGX_LOG_EMERG, cf,
                               &conf->endpoint.file, conf->endpoint.line,
                               "\"%V\" is a nango_tag and a nango_owner of "
                               "the same location", &tag[i].name);
                return NGX_CONF_ERROR;
            }
        }
    }

    if (conf->owners->nelts + (conf->tags ? conf->tags->nelts : 0)
        > NANGO_TAGS_MAX)
    {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &conf->endpoint.file,
                       conf->endpoint.line,
                       "more than %d owners and tags, which Nango refuses",
                       NANGO_TAGS_MAX);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_nango_tags(ngx_http_request_t *r, ngx_array_t *tags)
{
    ngx_str_t                   s;
    ngx_uint_t                  i;
    const char                 *error;
    nango_tag_t                *t;
    ngx_http_nango_tag_t       *tag;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (nlcf->tags == NULL) {
        return NGX_OK;
    }

    tag = nlcf->tags->elts;

    for (i = 0; i < nlcf->tags->nelts; i++) {

        if (ngx_http_complex_value(r, &tag[i].value, &s) != NGX_OK) {
            return NGX_ERROR;
        }

        if (s.len == 0) {
            continue;
        }

        error = nango_tag_value_error(ngx_nango_str(&tag[i].name),
                                      ngx_nango_str(&s));
        if (error) {
            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "the value of nango_tag \"%V\" is left out: it %s",
                          &tag[i].name, error);
            continue;
        }

        t = ngx_array_push(tags);
        if (t == NULL) {
            return NGX_ERROR;
        }

        t->name = ngx_nango_str(&tag[i].name);
        t->value = ngx_nango_str(&s);
    }

    return NGX_OK;
}
