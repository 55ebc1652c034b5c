/*
 * Copyright (C) nginx-nango authors
 *
 * nango_store path [size=N] [retain=TIME];
 *
 * The path is an ngx_path_t: nginx makes and chowns exactly that directory, by
 * its own rules, and root never creates anything inside of it.  The directory
 * for bodies on their way in is known to nginx as a client_body_temp_path, but
 * is not in its list of paths to be made: the worker makes it.
 */

#include "ngx_http_nango.h"

#include <sys/vfs.h>


#define NGX_HTTP_NANGO_SIZE_MIN   (16LL * 1024 * 1024)
#define NGX_HTTP_NANGO_SIZE       (16LL * 1024 * 1024 * 1024)
#define NGX_HTTP_NANGO_RETAIN     (7 * 24 * 60 * 60)

/* An address space has room for two maps of that; ms are counted in 64 bits. */
#define NGX_HTTP_NANGO_SIZE_MAX    (16LL * 1024 * 1024 * 1024 * 1024)
#define NGX_HTTP_NANGO_RETAIN_MAX  (100LL * 365 * 24 * 60 * 60)

#define NGX_HTTP_NANGO_NFS        0x6969
#define NGX_HTTP_NANGO_TMPFS      0x01021994


static void ngx_http_nango_store_filesystem(ngx_conf_t *cf, ngx_str_t *path);


char *
ngx_http_nango_store_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_main_conf_t *nmcf = conf;

    off_t             size;
    time_t            retain;
    ngx_str_t        *value, s;
    ngx_uint_t        i;
    ngx_path_t       *path, *temp;
    ngx_file_info_t   fi;

    if (nmcf->store.path.len) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "size=", 5) == 0) {

            s.data = value[i].data + 5;
            s.len = value[i].len - 5;

            size = ngx_parse_offset(&s);

            if (size == NGX_ERROR) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid size \"%V\"; write it as "
                                   "\"size=16g\"", &s);
                return NGX_CONF_ERROR;
            }

            if (size < NGX_HTTP_NANGO_SIZE_MIN) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "the size \"%V\" is too small; it must be "
                                   "16m at least", &s);
                return NGX_CONF_ERROR;
            }

            if (size > NGX_HTTP_NANGO_SIZE_MAX) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "the size \"%V\" is too large; it must be "
                                   "16384g at most", &s);
                return NGX_CONF_ERROR;
            }

            if (nmcf->store.size) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"size=\" is duplicate");
                return NGX_CONF_ERROR;
            }

            nmcf->store.size = size;
            continue;
        }

        if (ngx_strncmp(value[i].data, "retain=", 7) == 0) {

            s.data = value[i].data + 7;
            s.len = value[i].len - 7;

            retain = ngx_parse_time(&s, 1);

            if (retain == (time_t) NGX_ERROR || retain < 1) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid time \"%V\"; write it as "
                                   "\"retain=7d\"", &s);
                return NGX_CONF_ERROR;
            }

            if (retain > NGX_HTTP_NANGO_RETAIN_MAX) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "the time \"%V\" is too long; it must be "
                                   "100y at most", &s);
                return NGX_CONF_ERROR;
            }

            if (nmcf->store.retain) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"retain=\" is duplicate");
                return NGX_CONF_ERROR;
            }

            nmcf->store.retain = retain;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"; there are \"size=\" and "
                           "\"retain=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    if (nmcf->store.size == 0) {
        nmcf->store.size = NGX_HTTP_NANGO_SIZE;
    }

    if (nmcf->store.retain == 0) {
        nmcf->store.retain = NGX_HTTP_NANGO_RETAIN;
    }

    path = ngx_pcalloc(cf->pool, sizeof(ngx_path_t));
    temp = ngx_pcalloc(cf->pool, sizeof(ngx_path_t));

    if (path == NULL || temp == NULL) {
        return NGX_CONF_ERROR;
    }

    path->name = value[1];

    if (path->name.len && path->name.data[path->name.len - 1] == '/') {
        path->name.len--;
        path->name.data[path->name.len] = '\0';
    }

    if (path->name.len == 0
        || ngx_strncmp(path->name.data, "size=", 5) == 0
        || ngx_strncmp(path->name.data, "retain=", 7) == 0)
    {
        return "needs the path of a directory";
    }

    if (ngx_conf_full_name(cf->cycle, &path->name, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    /* nginx would give it to the workers' user, whatever it is. */

    if (ngx_file_info(path->name.data, &fi) != NGX_FILE_ERROR
        && !ngx_is_dir(&fi))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the store \"%V\" is no directory", &path->name);
        return NGX_CONF_ERROR;
    }

    path->conf_file = cf->conf_file->file.name.data;
    path->line = cf->conf_file->line;

    if (ngx_add_path(cf, &path) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    nmcf->store.path = path->name;

    temp->name.len = path->name.len + sizeof("/temp") - 1;
    temp->name.data = ngx_pnalloc(cf->pool, temp->name.len + 1);
    if (temp->name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    (void) ngx_sprintf(temp->name.data, "%V/temp%Z", &path->name);

    nmcf->temp_path = temp;

    ngx_http_nango_store_filesystem(cf, &path->name);

    return NGX_CONF_OK;
}


static void
ngx_http_nango_store_filesystem(ngx_conf_t *cf, ngx_str_t *path)
{
    u_char         *p, name[NGX_MAX_PATH];
    struct statfs   fs;

    if (path->len >= NGX_MAX_PATH) {
        return;
    }

    ngx_cpystrn(name, path->data, path->len + 1);

    /* The directory may have to be made yet; then it is its parent's. */

    if (statfs((char *) name, &fs) == -1) {

        p = (u_char *) strrchr((char *) name, '/');

        if (p == NULL || p == name) {
            return;
        }

        *p = '\0';

        if (statfs((char *) name, &fs) == -1) {
            return;
        }
    }

    if (fs.f_type == NGX_HTTP_NANGO_NFS) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the store \"%V\" is on NFS, where its locks and "
                           "its memory map are not safe; use a local disk",
                           path);
    }

    if (fs.f_type == NGX_HTTP_NANGO_TMPFS) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the store \"%V\" is on tmpfs: acknowledged "
                           "webhooks are lost when this machine restarts",
                           path);
    }
}
