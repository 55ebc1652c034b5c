/*
 * Copyright (C) nginx-nango authors
 *
 * Looking into the store on behalf of a request, and finding the caller's own
 * connections there.
 */

#ifndef _NGX_HTTP_NANGO_LOOK_H_INCLUDED_
#define _NGX_HTTP_NANGO_LOOK_H_INCLUDED_


#include "ngx_http_nango.h"
#include "ngx_nango_store.h"


/* Records looked at for one question; a list has pages for more. */
#define NGX_HTTP_NANGO_FIND_MAX  10000


typedef struct ngx_http_nango_look_s  ngx_http_nango_look_t;

struct ngx_http_nango_look_s {
    /*
     * In a snapshot, which ends when it returns: what is needed later has to
     * be copied.  It neither answers nor waits.  NGX_BUSY: the store cannot
     * be read; it has been logged.
     */
    ngx_int_t              (*look)(ngx_http_request_t *r,
                                   nango_reader_t *reader, void *data);

    /*
     * Afterwards, with what look() returned, unless it was NGX_BUSY.  Returns
     * what is for ngx_http_finalize_request(), or NGX_AGAIN: later.
     */
    ngx_int_t              (*then)(ngx_http_request_t *r, ngx_int_t rc,
                                   void *data);

    void                    *data;

    /* To be in the state; 0: what was acknowledged up to now. */
    uint64_t                 sequence;

    unsigned                 now:1;         /* whatever is in the state */
    unsigned                 glance:1;      /* and nothing of the log */
    unsigned                 busy:1;        /* then() takes NGX_BUSY too */

    /* Private. */
    ngx_http_request_t      *request;
    ngx_nango_wait_t         wait;
    ngx_msec_t               deadline;
    unsigned                 waiting:1;
    unsigned                 cleanup:1;
};


/*
 * Looks as soon as the state has what was acknowledged before, at the latest
 * after a second.  NGX_AGAIN: that will be later, and the request has to be
 * held.  look is in the request's pool, zeroed, and used again after then().
 */
ngx_int_t ngx_http_nango_look(ngx_http_request_t *r,
    ngx_http_nango_look_t *look);

/* Of what look() got from the store: logs it, returns NGX_BUSY. */
ngx_int_t ngx_http_nango_unreadable(ngx_http_request_t *r,
    nango_error_t *err);


/*
 * The owner's connection of that key: NGX_OK and *c until the next is read;
 * NGX_DECLINED: there is none, or it is somebody else's; NGX_BUSY.
 */
ngx_int_t ngx_http_nango_find(ngx_http_request_t *r, nango_reader_t *reader,
    ngx_nango_environment_t *env, ngx_array_t *owners, u_char *key,
    nango_connection_t *c);

/*
 * The owner's connections to an integration, newest first, at most n of them,
 * with copies of their strings in the request's pool.  NGX_OK and *found,
 * which may be more than n; NGX_BUSY, NGX_ERROR.
 */
ngx_int_t ngx_http_nango_find_all(ngx_http_request_t *r,
    nango_reader_t *reader, ngx_nango_environment_t *env, ngx_array_t *owners,
    nango_str_t integration, nango_connection_t *c, ngx_uint_t n,
    ngx_uint_t *found);


/*
 * The connection that a request is about: by its key, or without one by its
 * integration.  NGX_OK and *c until the snapshot ends; NGX_DECLINED: none of
 * the caller's; NGX_ABORT: several, *choices is the answer's text; NGX_BUSY,
 * NGX_ERROR.  What is not NGX_OK or NGX_BUSY is for the second function, which
 * answers.
 */
ngx_int_t ngx_http_nango_choose(ngx_http_request_t *r, nango_reader_t *reader,
    ngx_array_t *owners, u_char *key, nango_str_t integration,
    nango_connection_t *c, ngx_str_t *choices);
ngx_int_t ngx_http_nango_not_chosen(ngx_http_request_t *r, ngx_int_t rc,
    ngx_str_t *choices);

/* To be kept after the snapshot: NGX_OK, NGX_ERROR. */
ngx_int_t ngx_http_nango_copy(ngx_pool_t *pool, nango_str_t *s);


/* Whether c is the owners', whatever its status. */
ngx_uint_t ngx_http_nango_owned(nango_connection_t *c, ngx_array_t *owners);


#endif /* _NGX_HTTP_NANGO_LOOK_H_INCLUDED_ */
