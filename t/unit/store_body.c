/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"

#include <dirent.h>
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>


/* errno of the next read; 0: none. */

static int  fault_read;


ssize_t
read(int fd, void *buf, size_t len)
{
    if (fault_read) {
        errno = fault_read;
        fault_read = 0;
        return -1;
    }

    return syscall(SYS_read, fd, buf, len);
}


static uint64_t
now_ms(void)
{
    return (uint64_t) time(NULL) * 1000;
}


static void
received(char path[PATH_MAX], const char *text, int *fd)
{
    static int  n;

    snprintf(path, PATH_MAX, "%.4000s/temp/%024d", directory, n++);

    *fd = open(path, O_RDWR|O_CREAT|O_EXCL, 0600);
    assert_true(*fd >= 0);
    assert_int_equal(write(*fd, text, strlen(text)), (long) strlen(text));
}


static void
adopt(nango_store_t *store, const char *text,
    char name[NANGO_BODY_NAME_LEN + 1])
{
    int            fd;
    char           from[PATH_MAX];
    unsigned char  raw[NANGO_BODY_NAME_LEN];

    received(from, text, &fd);
    assert_ok(nango_body_adopt(store, fd, from, raw, NULL, &failure));
    close(fd);

    assert_int_equal(access(from, F_OK), -1);

    memcpy(name, raw, sizeof(raw));
    name[sizeof(raw)] = '\0';
}


/* The mode, 0 if there is no such body. */

static mode_t
body_mode(nango_store_t *store, const char *name)
{
    char         *path;
    mode_t        mode;
    struct stat   sb;

    path = malloc(nango_body_path_len(store));
    assert_non_null(path);
    nango_body_path(store, Z(name), path);
    assert_int_equal(strlen(path) + 1, nango_body_path_len(store));

    mode = stat(path, &sb) == 0 ? sb.st_mode & 07777 : 0;
    free(path);

    return mode;
}


static event_t
naming(const char *name, uint64_t len)
{
    event_t  e;

    memset(&e, 0, sizeof(e));
    e.type = NANGO_TYPE_AUTH;
    e.op = NANGO_OP_CREATION;
    e.success = NANGO_SUCCESS_TRUE;
    e.id = "one";
    e.body_file = name;
    e.body_len = len;

    return e;
}


static void
a_received_file_becomes_a_body(void **state)
{
    int             i;
    char            one[NANGO_BODY_NAME_LEN + 1];
    char            two[NANGO_BODY_NAME_LEN + 1];
    nango_store_t  *store;

    store = store_open();

    adopt(store, "one", one);
    adopt(store, "two", two);
    assert_string_not_equal(one, two);

    for (i = 0; i < NANGO_BODY_NAME_LEN; i++) {
        assert_non_null(strchr("0123456789abcdef", one[i]));
    }

    assert_int_equal(body_mode(store, one), 0600);

    nango_body_remove(store, Z(one));
    assert_int_equal(body_mode(store, one), 0);
    assert_int_equal(body_mode(store, two), 0600);
    nango_body_remove(store, Z(one));

    nango_store_close(store);
}


static void
a_file_that_is_gone_is_an_error(void **state)
{
    int             fd;
    char            from[PATH_MAX];
    unsigned char   name[NANGO_BODY_NAME_LEN];
    nango_store_t  *store;

    store = store_open();

    received(from, "x", &fd);
    assert_int_equal(unlink(from), 0);
    assert_int_equal(nango_body_adopt(store, fd, from, name, NULL, &failure),
                     NANGO_EIO);
    assert_non_null(strstr(failure.text, "rename()"));
    close(fd);

    assert_int_equal(nango_body_adopt(store, fd, from, name, NULL, &failure),
                     NANGO_EIO);
    assert_non_null(strstr(failure.text, "fsync()"));

    nango_store_close(store);
}


static void
what_belongs_to_others_is_copied(void **state)
{
    char           *path, name[NANGO_BODY_NAME_LEN + 1], text[16];
    FILE           *file;
    unsigned char   raw[NANGO_BODY_NAME_LEN];
    nango_store_t  *store;

    store = store_open();

    assert_ok(nango_body_copy(store, S("a body"), raw, NULL, &failure));

    memcpy(name, raw, sizeof(raw));
    name[sizeof(raw)] = '\0';

    assert_int_equal(body_mode(store, name), 0600);

    path = malloc(nango_body_path_len(store));
    assert_non_null(path);
    nango_body_path(store, Z(name), path);

    file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof(text), file), 6);
    assert_memory_equal(text, "a body", 6);
    fclose(file);
    free(path);

    assert_ok(nango_body_copy(store, S(""), raw, NULL, &failure));

    nango_store_close(store);
}


static void
a_copy_that_fails_leaves_nothing(void **state)
{
    int             n;
    DIR            *dir;
    char            path[PATH_MAX];
    nango_rc_e      rc;
    unsigned char   raw[NANGO_BODY_NAME_LEN];
    struct rlimit   limit, old;
    nango_store_t  *store;

    store = store_open();

    /* no room for it, which is EFBIG here as ENOSPC is elsewhere */

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);

    rc = nango_body_copy(store, S("a body"), raw, NULL, &failure);

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, NANGO_EFULL);
    assert_non_null(strstr(failure.text, "write()"));

    snprintf(path, sizeof(path), "%.4000s/bodies", directory);
    dir = opendir(path);
    assert_non_null(dir);

    for (n = 0; readdir(dir) != NULL; n++) {
        /* "." and ".." */
    }

    closedir(dir);
    assert_int_equal(n, 2);

    nango_store_close(store);
}


static void
names_from_outside_stay_inside(void **state)
{
    int             fd;
    char            path[PATH_MAX], name[NANGO_BODY_NAME_LEN + 1];
    event_t         e;
    nango_store_t  *store;

    store = store_open();

    received(path, "x", &fd);
    close(fd);

    snprintf(name, sizeof(name), "../temp/%s", strrchr(path, '/') + 1);
    assert_int_equal(strlen(name), NANGO_BODY_NAME_LEN);

    nango_body_remove(store, Z(name));
    nango_body_remove(store, S("../temp"));
    nango_body_remove(store, S(""));
    assert_int_equal(access(path, F_OK), 0);

    /* nor does the fold read what is elsewhere */

    e = naming(name, 1);
    append(store, &e);
    assert_sequence(fold(store).not_understood, 1);

    nango_store_close(store);
}


static void
the_sweep_removes_what_no_record_names(void **state)
{
    char             named[NANGO_BODY_NAME_LEN + 1];
    char             orphan[NANGO_BODY_NAME_LEN + 1];
    event_t          e;
    nango_store_t   *store;

    store = store_open();

    adopt(store, "orphan", orphan);
    adopt(store, "named", named);
    e = naming(named, 5);
    append(store, &e);

    /* within the hour it is nobody's business */

    assert_int_equal(nango_body_sweep(store, now_ms() + HOUR / 2, 10,
                                      &failure),
                     0);

    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 10,
                                      &failure),
                     1);
    assert_int_equal(body_mode(store, orphan), 0);
    assert_int_equal(body_mode(store, named), 0400);

    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 10,
                                      &failure),
                     0);
    assert_int_equal(body_mode(store, named), 0400);

    nango_store_close(store);
}


static void
the_sweep_leaves_what_is_held(void **state)
{
    int             i, fd, held[2];
    char            from[PATH_MAX], name[2][NANGO_BODY_NAME_LEN + 1];
    nango_store_t  *store;

    store = store_open();

    memset(name, 0, sizeof(name));

    received(from, "received", &fd);
    assert_ok(nango_body_adopt(store, fd, from, (unsigned char *) name[0],
                               &held[0], &failure));
    close(fd);

    assert_ok(nango_body_copy(store, S("copied"), (unsigned char *) name[1],
                              &held[1], &failure));

    for (i = 0; i < 2; i++) {
        assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 10,
                                          &failure),
                         0);
        assert_int_equal(body_mode(store, name[i]), 0600);

        close(held[i]);

        assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 10,
                                          &failure),
                         1);
        assert_int_equal(body_mode(store, name[i]), 0);
    }

    nango_store_close(store);
}


static void
the_sweep_leaves_some_for_the_next(void **state)
{
    int             i;
    char            name[NANGO_BODY_NAME_LEN + 1];
    nango_store_t  *store;

    store = store_open();

    for (i = 0; i < 5; i++) {
        adopt(store, "x", name);
    }

    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 3, &failure),
                     3);
    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 3, &failure),
                     2);
    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 3, &failure),
                     0);

    nango_store_close(store);
}


static void
the_sweep_leaves_what_is_no_body(void **state)
{
    int             i, fd;
    char            path[PATH_MAX + 64];
    nango_store_t  *store;

    static const char  *names[] = {
        "README", "0123456789abcdef0123456789abcde",
        "0123456789abcdef0123456789abcdef0", "0123456789abcdef0123456789abcdeg"
    };

    store = store_open();

    for (i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/bodies/%s", directory, names[i]);
        fd = open(path, O_WRONLY|O_CREAT, 0600);
        assert_true(fd >= 0);
        close(fd);
    }

    snprintf(path, sizeof(path), "%s/bodies/%s", directory,
             "0123456789abcdef0123456789abcdef");
    assert_int_equal(mkdir(path, 0700), 0);

    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 9, &failure),
                     0);

    for (i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/bodies/%s", directory, names[i]);
        assert_int_equal(access(path, F_OK), 0);
    }

    nango_store_close(store);
}


/* Puts a record that nobody understands into the log, by LMDB itself. */

static void
put_event(nango_store_t *store, uint64_t sequence, const char *bytes)
{
    MDB_txn        *txn;
    MDB_val         key, val;
    unsigned char   buf[8];

    nango_put_be64(buf, sequence);
    key = nango_val(buf, 8);
    val = nango_val(bytes, strlen(bytes));

    assert_int_equal(mdb_txn_begin(store->log, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->events, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
the_sweep_removes_nothing_while_it_cannot_know(void **state)
{
    char             orphan[NANGO_BODY_NAME_LEN + 1];
    nango_store_t   *store;

    store = store_open();
    adopt(store, "orphan", orphan);

    put_event(store, 1, "\x02 of a later version");
    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 9, &failure),
                     0);

    put_event(store, 1, "\x01 cut off");
    assert_int_equal(nango_body_sweep(store, now_ms() + 2 * HOUR, 9, &failure),
                     0);
    assert_int_equal(body_mode(store, orphan), 0600);

    nango_store_close(store);
}


static void
the_fold_marks_what_it_sees_named(void **state)
{
    char             name[NANGO_BODY_NAME_LEN + 1];
    event_t          e;
    nango_store_t   *store;

    store = store_open();

    adopt(store, "{\"type\":\"forward\"}", name);
    e = naming(name, 18);
    e.type = NANGO_TYPE_FORWARD;
    append(store, &e);
    fold(store);

    assert_int_equal(body_mode(store, name), 0400);

    nango_store_close(store);
}


static void
the_body_of_an_event_may_be_a_file(void **state)
{
    char                 name[NANGO_BODY_NAME_LEN + 1];
    event_t              e;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    static const char  text[] =
        "{\"type\":\"auth\",\"operation\":\"creation\",\"success\":true,"
        "\"connectionId\":\"one\",\"providerConfigKey\":\"github\","
        "\"tags\":{\"end_user_id\":\"7\"}}";

    store = store_open();

    adopt(store, text, name);
    e = naming(name, sizeof(text) - 1);
    append(store, &e);
    assert_sequence(fold(store).not_understood, 0);

    reader = snapshot(store);
    assert_int_equal(find(reader, "one", &c), 1);
    assert_str(nango_connection_tag(&c, S("end_user_id")), "7");
    snapshot_end(reader);

    nango_store_close(store);
}


/* Until somebody has mended the disk, or removed the file. */

static void
a_body_that_cannot_be_read_is_waited_for(void **state)
{
    char                    name[NANGO_BODY_NAME_LEN + 1];
    event_t                 e;
    nango_store_t          *store;
    nango_folded_t          folded;
    nango_fold_options_t    options;

    static const char  text[] =
        "{\"type\":\"auth\",\"operation\":\"creation\",\"success\":true,"
        "\"connectionId\":\"one\",\"providerConfigKey\":\"github\"}";

    store = store_open();

    adopt(store, text, name);
    e = naming(name, sizeof(text) - 1);
    append(store, &e);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;

    fault_read = EIO;
    assert_int_equal(nango_fold(store, &options, &folded, &failure),
                     NANGO_EIO);
    assert_int_equal(fault_read, 0);
    assert_false(nango_store_needs_recovery(store));

    /* a signal is nothing */

    fault_read = EINTR;
    assert_sequence(fold(store).not_understood, 0);
    assert_int_equal(fault_read, 0);
    assert_sequence(counts(store).valid, 1);

    nango_store_close(store);
}


static void
a_missing_body_is_not_understood(void **state)
{
    char            name[NANGO_BODY_NAME_LEN + 1];
    event_t         e;
    nango_store_t  *store;

    store = store_open();

    adopt(store, "{\"type\":\"auth\"}", name);

    e = naming("00000000000000000000000000000000", 15);
    append(store, &e);
    e = naming("../../../../../../../etc/passwd0", 15);
    append(store, &e);

    /* one that is shorter than it was */

    e = naming(name, 16);
    append(store, &e);

    /* and one that is none of an auth event */

    e = naming("00000000000000000000000000000000", 15);
    e.type = NANGO_TYPE_FORWARD;
    append(store, &e);

    assert_sequence(fold(store).not_understood, 3);
    assert_sequence(counts(store).not_understood, 3);
    assert_sequence(counts(store).events, 4);

    nango_store_close(store);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(a_received_file_becomes_a_body),
        store_unit(a_file_that_is_gone_is_an_error),
        store_unit(what_belongs_to_others_is_copied),
        store_unit(a_copy_that_fails_leaves_nothing),
        store_unit(names_from_outside_stay_inside),
        store_unit(the_sweep_removes_what_no_record_names),
        store_unit(the_sweep_leaves_what_is_held),
        store_unit(the_sweep_leaves_some_for_the_next),
        store_unit(the_sweep_leaves_what_is_no_body),
        store_unit(the_sweep_removes_nothing_while_it_cannot_know),
        store_unit(the_fold_marks_what_it_sees_named),
        store_unit(the_body_of_an_event_may_be_a_file),
        store_unit(a_body_that_cannot_be_read_is_waited_for),
        store_unit(a_missing_body_is_not_understood)
    };

    return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
