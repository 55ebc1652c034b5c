/*
 * Copyright (C) nginx-nango authors
 *
 * LMDB's file as version 0.9 lays it out (its format number is 1), read with
 * pread(): a disk that cannot read says EIO here, and SIGBUS in LMDB's map.
 *
 * What is checked is what LMDB's code rests on: each page says its own number
 * and kind, its nodes lie inside of it and apart from each other, keys ascend,
 * children are pages of the snapshot, no page is used twice or is in use and
 * free at once.  The last is what protects acknowledged events from a damaged
 * list of free pages.  What values hold is for those who decode them.
 */


#include "nango_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define NANGO_CHECK_MAGIC     0xbeefc0de
#define NANGO_CHECK_FORMAT    1

/* A page: number, pad, flags, then lower and upper or the number of pages. */
#define NANGO_CHECK_HEAD      16
#define NANGO_CHECK_FLAGS     10
#define NANGO_CHECK_LOWER     12
#define NANGO_CHECK_UPPER     14

#define NANGO_CHECK_BRANCH    0x01
#define NANGO_CHECK_LEAF      0x02
#define NANGO_CHECK_OVERFLOW  0x04
#define NANGO_CHECK_META      0x08

/* A node: two halves of a size or a page, flags, the key's length, the key. */
#define NANGO_CHECK_NODE      8
#define NANGO_CHECK_BIGDATA   0x01
#define NANGO_CHECK_SUBDATA   0x02

/* A meta page: after its head magic, format, two trees, the last page, txn. */
#define NANGO_CHECK_META_LEN  152
#define NANGO_CHECK_FREE      40
#define NANGO_CHECK_MAIN      88
#define NANGO_CHECK_LAST      136
#define NANGO_CHECK_TXNID     144

/* A tree: pad (the page size, in the first), flags, depth, counts, root. */
#define NANGO_CHECK_TREE      48

#define NANGO_CHECK_NONE      UINT64_MAX
#define NANGO_CHECK_DEPTH     32
#define NANGO_CHECK_KEY       511
#define NANGO_CHECK_TABLES    32
#define NANGO_CHECK_SIZE_MAX  32768

/*
 * Of the large table, from its end: leaves that are read, and first pages of
 * large values.
 */
#define NANGO_CHECK_LEAVES    65536


typedef struct {
    uint16_t              flags;
    uint16_t              depth;
    uint64_t              root;
    unsigned              integer:1;    /* keys are numbers of this machine */
    unsigned              tables:1;     /* values may be trees */
    unsigned              free:1;       /* values are lists of free pages */
    size_t                leaves;       /* to be read, of the last ones */
    size_t                values;       /* the same, of pages of their own */
} nango_check_tree_t;

typedef struct {
    int                   fd;
    size_t                psize;
    uint64_t              last;         /* page */
    uint64_t              txnid;
    const char           *much;
    unsigned char        *used;         /* a bit for each page */
    unsigned char        *pages;        /* one for each level, and one more */
    unsigned char        *nodes;        /* a bit for two bytes of a page */
    nango_check_tree_t    tables[NANGO_CHECK_TABLES];
    size_t                ntables;
    char                 *text;
} nango_check_t;


static int nango_check_snapshot(nango_check_t *ck, MDB_txn *txn,
    unsigned char meta[NANGO_CHECK_META_LEN]);
static int nango_check_trees(nango_check_t *ck, const unsigned char *meta);
static int nango_check_tree(nango_check_t *ck, nango_check_tree_t *tree);
static int nango_check_page(nango_check_t *ck, nango_check_tree_t *tree,
    uint64_t pgno, unsigned level);
static int nango_check_nodes(nango_check_t *ck, nango_check_tree_t *tree,
    const unsigned char *page, uint64_t pgno, int leaf, size_t *n);
static int nango_check_value(nango_check_t *ck, nango_check_tree_t *tree,
    const unsigned char *node, uint64_t pgno);
static int nango_check_list(nango_check_t *ck, const unsigned char *data,
    size_t size, uint64_t pgno, uint64_t overflow);
static int nango_check_table(nango_check_t *ck, const unsigned char *node,
    uint64_t pgno);
static int nango_check_use(nango_check_t *ck, uint64_t pgno, uint64_t n);
static int nango_check_read(int fd, void *buf, size_t len, uint64_t offset);
static int nango_check_damaged(nango_check_t *ck, uint64_t pgno,
    const char *what);


/* The file is of this machine's byte order. */

static inline uint16_t
nango_check_16(const unsigned char *p)
{
    uint16_t  n;

    memcpy(&n, p, sizeof(n));

    return n;
}


static inline uint32_t
nango_check_32(const unsigned char *p)
{
    uint32_t  n;

    memcpy(&n, p, sizeof(n));

    return n;
}


static inline uint64_t
nango_check_64(const unsigned char *p)
{
    uint64_t  n;

    memcpy(&n, p, sizeof(n));

    return n;
}


static inline const unsigned char *
nango_check_node(const unsigned char *page, size_t i)
{
    return page + nango_check_16(page + NANGO_CHECK_HEAD + i * 2);
}


static inline size_t
nango_check_size(const unsigned char *node)
{
    return nango_check_16(node) | (size_t) nango_check_16(node + 2) << 16;
}


static inline uint64_t
nango_check_child(const unsigned char *node)
{
    return nango_check_size(node)
           | (uint64_t) nango_check_16(node + 4) << 32;
}


int
nango_check_head(const char *path, char text[NANGO_CHECK_TEXT])
{
    int             i, n, fd, rc;
    uint32_t        psize;
    struct stat     sb;
    const char     *what;
    unsigned char   meta[2][NANGO_CHECK_META_LEN];

    text[0] = '\0';

    fd = open(path, O_RDONLY|O_CLOEXEC);

    if (fd == -1) {
        return (errno == ENOENT) ? 0 : errno;
    }

    psize = 0;
    what = NULL;

    rc = (fstat(fd, &sb) == -1) ? errno : 0;

    /*
     * Another process may be making it: LMDB waits for that, and looks.  But
     * the page that is there has to say how large pages are, since LMDB
     * divides by that.
     */

    if (rc != 0 || !S_ISREG(sb.st_mode) || sb.st_size == 0) {
        goto done;
    }

    n = (sb.st_size < 2 * 4096) ? 1 : 2;

    for (i = 0; i < n; i++) {
        rc = nango_check_read(fd, meta[i], NANGO_CHECK_META_LEN,
                              (uint64_t) i * psize);

        if (rc == EOVERFLOW) {
            what = "it ends too early";
        }

        /* Anew: whoever commits makes the file larger before this page. */

        if (rc == 0 && fstat(fd, &sb) == -1) {
            rc = errno;
        }

        if (rc != 0) {
            goto done;
        }

        if (i == 0) {
            psize = nango_check_32(meta[0] + NANGO_CHECK_FREE);
        }

        if (nango_check_32(meta[i] + NANGO_CHECK_HEAD) != NANGO_CHECK_MAGIC
            || nango_check_16(meta[i] + NANGO_CHECK_FLAGS)
               != NANGO_CHECK_META)
        {
            what = "it does not begin as LMDB's files do";

        } else if (nango_check_32(meta[i] + NANGO_CHECK_HEAD + 4)
                   != NANGO_CHECK_FORMAT)
        {
            rc = MDB_VERSION_MISMATCH;

        } else if (psize < 512 || psize > NANGO_CHECK_SIZE_MAX
                   || (psize & (psize - 1)) != 0
                   || nango_check_32(meta[i] + NANGO_CHECK_FREE) != psize)
        {
            what = "its size of a page is none";

        } else if (nango_check_16(meta[i] + NANGO_CHECK_FREE + 4)
                   != MDB_INTEGERKEY
                   || nango_check_16(meta[i] + NANGO_CHECK_MAIN + 4) != 0)
        {
            what = "its trees are of another kind";

        } else if (n == 2
                   && nango_check_64(meta[i] + NANGO_CHECK_LAST)
                      >= (uint64_t) sb.st_size / psize)
        {
            what = "it ends before its last page";

        } else if (nango_check_64(meta[i] + NANGO_CHECK_TXNID) != 0
                   && (nango_check_64(meta[i] + NANGO_CHECK_TXNID) & 1)
                      != (unsigned) i)
        {
            what = "its first pages do not belong together";
        }

        if (rc != 0 || what != NULL) {
            goto done;
        }
    }

done:

    (void) close(fd);

    if (what != NULL) {
        (void) snprintf(text, NANGO_CHECK_TEXT, "%s", what);
        return MDB_CORRUPTED;
    }

    return rc;
}


int
nango_check_pages(MDB_env *env, const char *much, char text[NANGO_CHECK_TEXT])
{
    int             rc;
    MDB_txn        *txn;
    MDB_stat        stat;
    nango_check_t   ck;
    unsigned char   meta[NANGO_CHECK_META_LEN];

    text[0] = '\0';

    memset(&ck, 0, sizeof(nango_check_t));

    ck.much = much;
    ck.text = text;

    rc = mdb_env_get_fd(env, &ck.fd);

    if (rc == 0) {
        rc = mdb_env_stat(env, &stat);
    }

    if (rc != 0) {
        return rc;
    }

    ck.psize = stat.ms_psize;

    /* While a snapshot is held, nobody writes to its pages. */

    do {
        rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
        if (rc != 0) {
            return rc;
        }

        rc = nango_check_snapshot(&ck, txn, meta);

        if (rc == EAGAIN) {
            mdb_txn_abort(txn);
        }

    } while (rc == EAGAIN);

    if (rc == 0) {
        ck.used = calloc(1, (size_t) (ck.last / 8 + 1));
        ck.pages = malloc((NANGO_CHECK_DEPTH + 1) * ck.psize);
        ck.nodes = malloc(ck.psize / 16 + 1);

        rc = (ck.used && ck.pages && ck.nodes)
             ? nango_check_trees(&ck, meta) : ENOMEM;
    }

    free(ck.used);
    free(ck.pages);
    free(ck.nodes);

    mdb_txn_abort(txn);

    return rc;
}


/*
 * The snapshot's page of the two, which is not written to before the next
 * but one commit.  EAGAIN: that has happened already.
 */

static int
nango_check_snapshot(nango_check_t *ck, MDB_txn *txn,
    unsigned char meta[NANGO_CHECK_META_LEN])
{
    int          rc;
    size_t       i;
    uint64_t     other;
    struct stat  sb;

    ck->txnid = mdb_txn_id(txn);

    if (fstat(ck->fd, &sb) == -1) {
        return errno;
    }

    rc = nango_check_read(ck->fd, meta, NANGO_CHECK_META_LEN,
                          (ck->txnid & 1) * ck->psize);
    if (rc != 0) {
        return (rc == EOVERFLOW)
               ? nango_check_damaged(ck, ck->txnid & 1, "is missing") : rc;
    }

    other = nango_check_64(meta + NANGO_CHECK_TXNID);

    if (other != ck->txnid) {
        i = (size_t) (ck->txnid & 1);
        return (other > ck->txnid)
               ? EAGAIN : nango_check_damaged(ck, i, "is not the newest");
    }

    ck->last = nango_check_64(meta + NANGO_CHECK_LAST);

    if (ck->last < 1 || ck->last >= (uint64_t) sb.st_size / ck->psize) {
        return nango_check_damaged(ck, ck->last, "is missing");
    }

    return 0;
}


static int
nango_check_trees(nango_check_t *ck, const unsigned char *meta)
{
    int                 rc;
    size_t              i;
    nango_check_tree_t  tree;

    ck->used[0] = 0x03;

    memset(&tree, 0, sizeof(nango_check_tree_t));

    tree.depth = nango_check_16(meta + NANGO_CHECK_MAIN + 6);
    tree.root = nango_check_64(meta + NANGO_CHECK_MAIN + 40);
    tree.tables = 1;
    tree.leaves = SIZE_MAX;
    tree.values = SIZE_MAX;

    rc = nango_check_tree(ck, &tree);

    for (i = 0; rc == 0 && i < ck->ntables; i++) {
        rc = nango_check_tree(ck, &ck->tables[i]);
    }

    if (rc != 0) {
        return rc;
    }

    /* Last, when it is known what is not free. */

    tree.depth = nango_check_16(meta + NANGO_CHECK_FREE + 6);
    tree.root = nango_check_64(meta + NANGO_CHECK_FREE + 40);
    tree.tables = 0;
    tree.integer = 1;
    tree.free = 1;

    return nango_check_tree(ck, &tree);
}


static int
nango_check_tree(nango_check_t *ck, nango_check_tree_t *tree)
{
    if (tree->root == NANGO_CHECK_NONE) {
        return (tree->depth == 0)
               ? 0 : nango_check_damaged(ck, 0, "has a tree without root");
    }

    if (tree->depth == 0 || tree->depth >= NANGO_CHECK_DEPTH) {
        return nango_check_damaged(ck, tree->root, "is of a tree too deep");
    }

    return nango_check_page(ck, tree, tree->root, 0);
}


/* From the last child to the first: what is newest is looked at. */

static int
nango_check_page(nango_check_t *ck, nango_check_tree_t *tree, uint64_t pgno,
    unsigned level)
{
    int             rc, leaf;
    size_t          i, n;
    unsigned char  *page;

    rc = nango_check_use(ck, pgno, 1);
    if (rc != 0) {
        return rc;
    }

    leaf = (level + 1 == tree->depth);

    if (leaf) {
        if (tree->leaves == 0) {
            return 0;
        }

        tree->leaves--;
    }

    n = 0;
    page = ck->pages + level * ck->psize;

    rc = nango_check_read(ck->fd, page, ck->psize, pgno * ck->psize);

    if (rc == EOVERFLOW) {
        return nango_check_damaged(ck, pgno, "is missing");
    }

    if (rc == 0) {
        rc = nango_check_nodes(ck, tree, page, pgno, leaf, &n);
    }

    if (rc != 0) {
        return rc;
    }

    for (i = n; i-- > 0; /* void */ ) {

        rc = leaf ? nango_check_value(ck, tree, nango_check_node(page, i),
                                      pgno)
                  : nango_check_page(ck, tree,
                              nango_check_child(nango_check_node(page, i)),
                              level + 1);
        if (rc != 0) {
            return rc;
        }
    }

    return 0;
}


static int
nango_check_nodes(nango_check_t *ck, nango_check_tree_t *tree,
    const unsigned char *page, uint64_t pgno, int leaf, size_t *n)
{
    int                   order;
    size_t                i, at, len, klen, before, lower, upper;
    const unsigned char  *node, *key;

    if (nango_check_64(page) != pgno) {
        return nango_check_damaged(ck, pgno, "says another number");
    }

    if (nango_check_16(page + NANGO_CHECK_FLAGS)
        != (leaf ? NANGO_CHECK_LEAF : NANGO_CHECK_BRANCH))
    {
        return nango_check_damaged(ck, pgno, "is of another kind");
    }

    lower = nango_check_16(page + NANGO_CHECK_LOWER);
    upper = nango_check_16(page + NANGO_CHECK_UPPER);

    if (lower < NANGO_CHECK_HEAD || (lower & 1) || lower > upper
        || upper > ck->psize)
    {
        return nango_check_damaged(ck, pgno, "has no bounds");
    }

    *n = (lower - NANGO_CHECK_HEAD) / 2;

    if (*n < (leaf || tree->free ? 1 : 2)) {
        return nango_check_damaged(ck, pgno, "has too few nodes");
    }

    memset(ck->nodes, 0, ck->psize / 16 + 1);

    key = NULL;
    before = 0;

    for (i = 0; i < *n; i++) {
        at = nango_check_16(page + NANGO_CHECK_HEAD + i * 2);

        if (at < upper || (at & 1) || at + NANGO_CHECK_NODE > ck->psize) {
            return nango_check_damaged(ck, pgno, "has a node elsewhere");
        }

        node = page + at;
        klen = nango_check_16(node + 6);
        len = NANGO_CHECK_NODE + klen;

        if (leaf) {
            len += (nango_check_16(node + 4) & NANGO_CHECK_BIGDATA)
                   ? sizeof(uint64_t) : nango_check_size(node);
        }

        if (klen > NANGO_CHECK_KEY || at + len > ck->psize
            || (tree->integer && klen != sizeof(uint64_t)
                && (leaf || i != 0)))
        {
            return nango_check_damaged(ck, pgno, "has a node too long");
        }

        for (len = (len + 1) / 2, at /= 2; len; len--, at++) {

            if (ck->nodes[at / 8] & (1 << at % 8)) {
                return nango_check_damaged(ck, pgno, "has nodes in one");
            }

            ck->nodes[at / 8] |= (unsigned char) (1 << at % 8);
        }

        /* A branch's first key is never looked at. */

        if (i > (leaf ? 0 : 1)) {

            if (tree->integer) {
                order = (nango_check_64(key)
                         < nango_check_64(node + NANGO_CHECK_NODE)) ? -1 : 1;

            } else {
                order = memcmp(key, node + NANGO_CHECK_NODE,
                               before < klen ? before : klen);

                if (order == 0) {
                    order = (before < klen) ? -1 : 1;
                }
            }

            if (order > 0) {
                return nango_check_damaged(ck, pgno, "is not in order");
            }
        }

        key = node + NANGO_CHECK_NODE;
        before = klen;
    }

    return 0;
}


static int
nango_check_value(nango_check_t *ck, nango_check_tree_t *tree,
    const unsigned char *node, uint64_t pgno)
{
    int                   rc;
    size_t                size;
    uint64_t              overflow, n;
    unsigned              flags;
    unsigned char         head[NANGO_CHECK_HEAD];
    const unsigned char  *data;

    size = nango_check_size(node);
    flags = nango_check_16(node + 4);
    data = node + NANGO_CHECK_NODE + nango_check_16(node + 6);

    if (flags & ~(NANGO_CHECK_BIGDATA
                  | (tree->tables ? NANGO_CHECK_SUBDATA : 0)))
    {
        return nango_check_damaged(ck, pgno, "has a value of another kind");
    }

    if (!(flags & NANGO_CHECK_BIGDATA)) {

        if (tree->free) {
            return nango_check_list(ck, data, size, pgno, 0);
        }

        return (flags & NANGO_CHECK_SUBDATA)
               ? nango_check_table(ck, node, pgno) : 0;
    }

    overflow = nango_check_64(data);

    n = (NANGO_CHECK_HEAD + size + ck->psize - 1) / ck->psize;

    /* Where they are is known without looking: such a value never changes. */

    if (tree->values == 0) {
        return nango_check_use(ck, overflow, n);
    }

    tree->values--;

    /* What a value was given first it keeps when it becomes smaller. */

    rc = (overflow <= ck->last)
         ? nango_check_read(ck->fd, head, NANGO_CHECK_HEAD,
                            overflow * ck->psize)
         : EOVERFLOW;

    if (rc == EOVERFLOW) {
        return nango_check_damaged(ck, overflow, "is missing");
    }

    if (rc != 0) {
        return rc;
    }

    if (nango_check_64(head) != overflow
        || nango_check_16(head + NANGO_CHECK_FLAGS) != NANGO_CHECK_OVERFLOW
        || nango_check_32(head + NANGO_CHECK_LOWER) < n)
    {
        return nango_check_damaged(ck, overflow, "is of another kind");
    }

    rc = nango_check_use(ck, overflow,
                         nango_check_32(head + NANGO_CHECK_LOWER));

    if (rc == 0 && tree->free) {
        rc = nango_check_list(ck, NULL, size, pgno, overflow);
    }

    return rc;
}


/* A number of pages, then these, the last page first.  data: on a page. */

static int
nango_check_list(nango_check_t *ck, const unsigned char *data, size_t size,
    uint64_t pgno, uint64_t overflow)
{
    int             rc;
    size_t          i;
    uint64_t        n, before, page;
    unsigned char  *buf;

    buf = NULL;
    rc = 0;

    if (data == NULL) {
        buf = malloc(size);
        if (buf == NULL) {
            return ENOMEM;
        }

        rc = nango_check_read(ck->fd, buf, size,
                              overflow * ck->psize + NANGO_CHECK_HEAD);
        data = buf;
    }

    if (rc == 0 && size < sizeof(uint64_t)) {
        rc = EOVERFLOW;
    }

    if (rc == 0) {
        n = nango_check_64(data);

        if (n > size / sizeof(uint64_t) - 1) {
            rc = EOVERFLOW;
        }
    }

    if (rc == 0) {
        before = ck->last + 1;

        for (i = 1; i <= n; i++) {
            page = nango_check_64(data + i * sizeof(uint64_t));

            if (page >= before) {
                rc = EOVERFLOW;
                break;
            }

            before = page;

            rc = nango_check_use(ck, page, 1);
            if (rc != 0) {
                break;
            }
        }
    }

    free(buf);

    return (rc == EOVERFLOW)
           ? nango_check_damaged(ck, pgno, "has no list of free pages") : rc;
}


static int
nango_check_table(nango_check_t *ck, const unsigned char *node, uint64_t pgno)
{
    size_t                len;
    nango_check_tree_t   *tree;
    const unsigned char  *db;

    len = nango_check_16(node + 6);
    db = node + NANGO_CHECK_NODE + len;

    if (nango_check_size(node) != NANGO_CHECK_TREE
        || ck->ntables == NANGO_CHECK_TABLES
        || nango_check_16(db + 4) != 0)
    {
        return nango_check_damaged(ck, pgno, "has a table that is none");
    }

    tree = &ck->tables[ck->ntables++];

    tree->depth = nango_check_16(db + 6);
    tree->root = nango_check_64(db + 40);
    tree->leaves = SIZE_MAX;
    tree->values = SIZE_MAX;

    if (ck->much != NULL && strlen(ck->much) == len
        && memcmp(ck->much, node + NANGO_CHECK_NODE, len) == 0)
    {
        tree->leaves = NANGO_CHECK_LEAVES;
        tree->values = NANGO_CHECK_LEAVES;
    }

    return 0;
}


static int
nango_check_use(nango_check_t *ck, uint64_t pgno, uint64_t n)
{
    uint64_t  i;

    if (pgno < 2 || pgno > ck->last || n > ck->last - pgno + 1) {
        return nango_check_damaged(ck, pgno, "is missing");
    }

    for (i = pgno; i < pgno + n; i++) {

        if (ck->used[i / 8] & (1 << i % 8)) {
            return nango_check_damaged(ck, i, "is used twice");
        }

        ck->used[i / 8] |= (unsigned char) (1 << i % 8);
    }

    return 0;
}


/* 0, errno, or EOVERFLOW beyond the file's end. */

static int
nango_check_read(int fd, void *buf, size_t len, uint64_t offset)
{
    ssize_t         n;
    unsigned char  *p;

    for (p = buf; len; p += n, offset += n, len -= n) {

        n = pread(fd, p, len, (off_t) offset);

        if (n == 0) {
            return EOVERFLOW;
        }

        if (n == -1) {
            if (errno != EINTR) {
                return errno;
            }

            n = 0;
        }
    }

    return 0;
}


static int
nango_check_damaged(nango_check_t *ck, uint64_t pgno, const char *what)
{
    (void) snprintf(ck->text, NANGO_CHECK_TEXT, "page %llu %s",
                    (unsigned long long) pgno, what);

    return MDB_CORRUPTED;
}
