/*
 * Copyright (C) nginx-nango authors
 *
 * Asking Nango's API on behalf of a request.
 */

#ifndef _NGX_HTTP_NANGO_CALL_H_INCLUDED_
#define _NGX_HTTP_NANGO_CALL_H_INCLUDED_


#include "ngx_http_nango.h"
#include "ngx_nango_curl.h"


typedef struct ngx_http_nango_call_s  ngx_http_nango_call_t;

/*
 * There is a whole reply, and no 429.  Returns what is for
 * ngx_http_finalize_request(); NGX_DECLINED if the reply is not what was asked
 * for, and the failure is answered and logged; NGX_AGAIN if the answer comes
 * later.
 */
typedef ngx_int_t (*ngx_http_nango_call_pt)(ngx_http_request_t *r,
    ngx_http_nango_call_t *call, ngx_nango_transfer_t *t);

/* In the request's pool, zeroed, and then filled by who calls. */
struct ngx_http_nango_call_s {
    ngx_nango_environment_t  *environment;
    const char               *method;       /* static, as the next four */
    const char               *name;         /* of the path, for the log */
    const char               *wanted;       /* "a session" */
    const char               *message;      /* of our 502 */
    const char               *path;         /* or that of memory */
    char                     *memory;       /* malloc()ed, taken over */
    char                     *body;         /* malloc()ed, taken over */
    size_t                    body_len;
    ngx_http_nango_call_pt    handler;
    void                    (*failed)(ngx_http_request_t *r,
                                      ngx_http_nango_call_t *call);
    void                     *data;

    /* Private. */
    ngx_http_request_t       *request;
    ngx_nango_transfer_t     *transfer;
};


/*
 * NGX_AGAIN: handler will be called, or the request is answered when Nango
 * cannot be asked; anything else is what an answer returned.
 */
ngx_int_t ngx_http_nango_call(ngx_http_request_t *r,
    ngx_http_nango_call_t *call);


#endif /* _NGX_HTTP_NANGO_CALL_H_INCLUDED_ */
