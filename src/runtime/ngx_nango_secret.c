/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_secret.h.  An environment variable is also given to the core
 * module's list, as by nginx's own "env": else it is gone after an upgrade of
 * the binary, which is the worst moment to find out.
 */

#include "ngx_nango_secret.h"

#include "nango_secret.h"

#include <openssl/crypto.h>


#define NGX_NANGO_SECRET_MAX  (64 * 1024)


static char *ngx_nango_secret_file(ngx_conf_t *cf, ngx_str_t *path,
    ngx_str_t *text);
static char *ngx_nango_secret_env(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *text);
static char *ngx_nango_secret_parse(ngx_conf_t *cf, ngx_str_t *secret,
    ngx_str_t *text, ngx_array_t *keys);


char *
ngx_nango_secret_read(ngx_conf_t *cf, ngx_str_t *secret, ngx_array_t *keys)
{
    char       *rv;
    ngx_str_t   text, rest;

    if (ngx_strncmp(secret->data, "file:", 5) == 0) {

        rest.data = secret->data + 5;
        rest.len = secret->len - 5;

        rv = ngx_nango_secret_file(cf, &rest, &text);
        if (rv != NGX_CONF_OK) {
            return rv;
        }

        rv = ngx_nango_secret_parse(cf, secret, &text, keys);

        OPENSSL_cleanse(text.data, text.len);
        ngx_free(text.data);

        return rv;
    }

    if (ngx_strncmp(secret->data, "env:", 4) == 0) {

        rest.data = secret->data + 4;
        rest.len = secret->len - 4;

        rv = ngx_nango_secret_env(cf, &rest, &text);
        if (rv != NGX_CONF_OK) {
            return rv;
        }

        return ngx_nango_secret_parse(cf, secret, &text, keys);
    }

    if (ngx_strncmp(secret->data, "data:", 5) == 0) {

        text.data = secret->data + 5;
        text.len = secret->len - 5;

        return ngx_nango_secret_parse(cf, NULL, &text, keys);
    }

    /* Not what was written: it may be the secret itself. */

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "a secret must be written as \"file:PATH\", "
                       "\"env:NAME\" or \"data:VALUE\"");

    return NGX_CONF_ERROR;
}


static char *
ngx_nango_secret_file(ngx_conf_t *cf, ngx_str_t *path, ngx_str_t *text)
{
    ssize_t          n;
    size_t           len;
    ngx_fd_t         fd;
    ngx_str_t        name;
    ngx_file_info_t  fi;

    if (path->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"file:\" needs the path of a file");
        return NGX_CONF_ERROR;
    }

    name = *path;

    if (ngx_conf_full_name(cf->cycle, &name, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    fd = ngx_open_file(name.data, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "the secret's file \"%V\" could not be opened",
                           &name);
        return NGX_CONF_ERROR;
    }

    text->data = NULL;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_fd_info_n " \"%V\" failed", &name);
        goto failed;
    }

    if (!ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the secret's file \"%V\" is not a regular file",
                           &name);
        goto failed;
    }

    if (fi.st_mode & (S_IROTH|S_IWOTH)) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the secret's file \"%V\" is open to all users of "
                           "this machine: chmod o-rwx it", &name);
    }

    if (ngx_file_size(&fi) > NGX_NANGO_SECRET_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the secret's file \"%V\" is too large for keys, "
                           "one a line", &name);
        goto failed;
    }

    text->data = ngx_alloc(NGX_NANGO_SECRET_MAX, cf->log);
    if (text->data == NULL) {
        goto failed;
    }

    len = 0;

    do {
        n = ngx_read_fd(fd, text->data + len, NGX_NANGO_SECRET_MAX - len);

        if (n == -1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                               ngx_read_fd_n " \"%V\" failed", &name);
            goto failed;
        }

        len += n;

    } while (n > 0 && len < NGX_NANGO_SECRET_MAX);

    text->len = len;

    (void) ngx_close_file(fd);

    return NGX_CONF_OK;

failed:

    if (text->data) {
        ngx_free(text->data);
    }

    (void) ngx_close_file(fd);

    return NGX_CONF_ERROR;
}


static char *
ngx_nango_secret_env(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *text)
{
    char             *value;
    ngx_str_t        *var;
    ngx_uint_t        i;
    ngx_core_conf_t  *ccf;

    if (name->len == 0 || ngx_strchr(name->data, '=') != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"env:\" needs the name of a variable");
        return NGX_CONF_ERROR;
    }

    value = getenv((char *) name->data);

    if (value == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the environment variable \"%V\" is not set; nginx "
                           "must have been started with it", name);
        return NGX_CONF_ERROR;
    }

    text->data = (u_char *) value;
    text->len = ngx_strlen(value);

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);
    var = ccf->env.elts;

    for (i = 0; i < ccf->env.nelts; i++) {
        if (var[i].len == name->len
            && ngx_memcmp(var[i].data, name->data, name->len) == 0)
        {
            return NGX_CONF_OK;
        }
    }

    var = ngx_array_push(&ccf->env);
    if (var == NULL) {
        return NGX_CONF_ERROR;
    }

    *var = *name;

    return NGX_CONF_OK;
}


/* secret is NULL where its text must not be shown. */

static char *
ngx_nango_secret_parse(ngx_conf_t *cf, ngx_str_t *secret, ngx_str_t *text,
    ngx_array_t *keys)
{
    int          rc;
    ngx_str_t   *key;
    ngx_uint_t   n;
    nango_str_t  rest, line;

    static ngx_str_t  data = ngx_string("data:...");

    if (secret == NULL) {
        secret = &data;
    }

    rest = ngx_nango_str(text);
    n = 0;

    for ( ;; ) {
        rc = nango_secret_next(&rest, &line);

        if (rc == 0) {
            break;
        }

        if (rc == -1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" holds a character that no key of "
                               "Nango's has", secret);
            return NGX_CONF_ERROR;
        }

        key = ngx_array_push(keys);
        if (key == NULL) {
            return NGX_CONF_ERROR;
        }

        key->data = ngx_pnalloc(cf->pool, line.len + 1);
        if (key->data == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memcpy(key->data, line.data, line.len);
        key->data[line.len] = '\0';
        key->len = line.len;
        n++;
    }

    if (n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" holds no key",
                           secret);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
