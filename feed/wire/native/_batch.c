/* Writes one chunk of an event stream to every member of a group, in one call from Python.

   For a reviewer who knows sockets and not this project. The Python side is feed/wire/native/fanout_writer.py (which system call
   is used), feed/hypercorn_adapter/door.py (when a socket may be written here) and feed/fanout/group.py (who calls).

   A Socket is one TCP connection without TLS, non-blocking, owned by an asyncio transport in Python. A Member is one response
   on it: all of an HTTP/1.1 connection (stream 0), or one stream of an HTTP/2 connection. A group keeps its live members in a
   dictionary {Member: owner}. Writer.write(members, chunked, body) sends `chunked` to the first kind, and to the second one DATA
   frame (RFC 9113, 6.1): nine bytes that differ from stream to stream, and `body`. It returns a list of (owner, sent) for those
   that did not take all of their bytes; everybody else has taken everything, and needs no work.

   What keeps this right:
   - Order of bytes. A socket is written here only while `open` is true. Python sets it to false as soon as bytes wait for that
     socket (in the transport's buffer, or in the connection's own), and to true when none are left. After a write that ended
     within a frame it is false until Python has handed over the rest: such members come first in the result.
   - Descriptors. Python sets Socket.fd to -1 before the transport closes the descriptor, whose number the system gives away
     again at once. This file never opens, closes or duplicates a descriptor of a client.
   - Windows (RFC 9113, 5.2). The connection's is Socket.window, the stream's is Member.window, and there is no second copy:
     Python reads and writes these. A frame is taken off both when it is queued, and given back if no byte of it was sent. A
     frame that a window does not allow is not sent, and its member is in the result.
   - Memory. Nothing is allocated while sockets are written: queues are linked through the objects themselves (`next`), and the
     vectors for the kernel have a fixed size. The GIL is held throughout, and no Python code runs before all is sent, so neither
     the dictionary nor an object can change or vanish. Every operation that io_uring was given has completed before its memory
     is used again: with MSG_DONTWAIT the kernel completes it at once, with EAGAIN where the socket is full.
   - Errors of a socket are not looked at: its member comes back with nothing sent, Python writes to the transport, and the
     transport meets the same error and ends the connection. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE */
#endif

enum {
  ROUND = 512,    /* sockets that are written before their results are looked at; a power of two, as io_uring wants */
  VECTORS = 2048, /* parts of messages in one round */
  MESSAGE = 1024, /* parts of one message: IOV_MAX of Linux */
  HEAD = 9,       /* bytes of the head of an HTTP/2 frame */
  FRAME = 16384,  /* bytes of payload that every HTTP/2 client takes in one frame (RFC 9113, 4.2) */
};
static const int FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;

typedef struct {
  int fd; /* -1 where there is none */
  unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  void *map;
  size_t sqes_size, map_size;
} Ring;

typedef struct Member Member;
typedef struct Socket {
  PyObject_HEAD
  int fd;               /* -1 once it is closed */
  char open;            /* nothing waits in Python to be written to it first */
  long long window;     /* bytes that the client takes on the whole connection (HTTP/2) */
  long long frames;     /* DATA frames that were sent; Python resets it */
  Member *first, *last; /* what is queued for it, within one call */
  struct Socket *next;  /* the next one that has something queued */
} Socket;

struct Member {
  PyObject_HEAD
  Socket *socket;
  unsigned stream;  /* 0 for HTTP/1.1 */
  char open;        /* its response goes on */
  long long window; /* bytes that the client takes on this stream (HTTP/2) */
  Member *next;     /* in the queue of its socket, or in the list of those that did not take all */
  PyObject *owner;  /* the dictionary's value; borrowed, within one call */
  Py_ssize_t sent;  /* bytes of its frame or chunk that went out */
};

typedef struct { Member *first, *last; } List;

typedef struct {
  PyObject_HEAD
  Ring ring;
  Socket *sockets[ROUND];
  struct msghdr messages[ROUND];
  Py_ssize_t results[ROUND]; /* bytes sent, or less than 0 */
  struct iovec vectors[VECTORS];
  unsigned char heads[VECTORS / 2][HEAD];
  unsigned count, used; /* sockets and vectors in this round */
  char by_ring, busy;
} Writer;

typedef struct { /* what one call sends */
  const char *chunked, *body;
  Py_ssize_t chunked_size, body_size;
  List partial, untaken; /* those that took some of it, or nothing */
} Batch;

static PyTypeObject *socket_type, *member_type;

static void append(List *list, Member *member) {
  member->next = NULL;
  if (list->last) list->last->next = member; else list->first = member;
  list->last = member;
}

/* ---- The ways to the kernel: each fills `results` for the first `count` messages of a round. ---- */

static void send_by_loop(Writer *writer, unsigned begin) {
  for (unsigned i = begin; i < writer->count; i++) {
    struct msghdr *message = &writer->messages[i];
    int fd = writer->sockets[i]->fd;
    do {
      writer->results[i] = message->msg_iovlen == 1 ? send(fd, message->msg_iov->iov_base, message->msg_iov->iov_len, FLAGS)
                                                    : sendmsg(fd, message, FLAGS);
    } while (writer->results[i] < 0 && errno == EINTR);
  }
}

#if defined(__NR_io_uring_setup) && defined(IORING_FEAT_SINGLE_MMAP)
static void close_ring(Writer *writer) {
  Ring *ring = &writer->ring;
  if (ring->sqes) munmap(ring->sqes, ring->sqes_size);
  if (ring->map) munmap(ring->map, ring->map_size);
  if (ring->fd >= 0) close(ring->fd);
  *ring = (Ring){.fd = -1};
  writer->by_ring = 0;
}

static int open_ring(Writer *writer) { /* io_uring_setup(2); returns 0, or an errno */
  struct io_uring_params params = {0};
  Ring *ring = &writer->ring;
  *ring = (Ring){.fd = (int)syscall(__NR_io_uring_setup, ROUND, &params)};
  if (ring->fd < 0) return errno;
  if (!(params.features & IORING_FEAT_SINGLE_MMAP)) { close_ring(writer); return ENOSYS; }
  ring->map_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t cq_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  if (cq_size > ring->map_size) ring->map_size = cq_size;
  ring->sqes_size = params.sq_entries * sizeof(struct io_uring_sqe);
  int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  char *map = mmap(NULL, ring->map_size, protection, flags, ring->fd, IORING_OFF_SQ_RING);
  void *sqes = mmap(NULL, ring->sqes_size, protection, flags, ring->fd, IORING_OFF_SQES);
  ring->map = map == MAP_FAILED ? NULL : map, ring->sqes = sqes == MAP_FAILED ? NULL : sqes;
  if (!ring->map || !ring->sqes) { close_ring(writer); return ENOMEM; }
  madvise(map, ring->map_size, MADV_DONTFORK); /* a child must not share the queues of its parent */
  madvise(sqes, ring->sqes_size, MADV_DONTFORK);
#define AT(field) (void *)(map + params.field)
  ring->sq_tail = AT(sq_off.tail), ring->sq_mask = AT(sq_off.ring_mask), ring->sq_array = AT(sq_off.array);
  ring->cq_head = AT(cq_off.head), ring->cq_tail = AT(cq_off.tail), ring->cq_mask = AT(cq_off.ring_mask);
  ring->cqes = AT(cq_off.cqes);
  writer->by_ring = 1;
  return 0;
}

static unsigned reap(Writer *writer) { /* takes the completions that are there; returns how many */
  Ring *ring = &writer->ring;
  unsigned tail = atomic_load_explicit((_Atomic unsigned *)ring->cq_tail, memory_order_acquire), head = *ring->cq_head, seen = 0;
  for (; head != tail; head++, seen++) {
    struct io_uring_cqe *done = &ring->cqes[head & *ring->cq_mask];
    if (done->user_data < writer->count) writer->results[done->user_data] = done->res;
  }
  atomic_store_explicit((_Atomic unsigned *)ring->cq_head, head, memory_order_release);
  return seen;
}

/* io_uring_enter(2), once for the whole round as a rule. Where the kernel takes no more, the ring is given up for good, and
   the rest of the round is sent by the loop. */
static void send_by_ring(Writer *writer) {
  Ring *ring = &writer->ring;
  unsigned tail = *ring->sq_tail, submitted = 0, completed = 0;
  for (unsigned i = 0; i < writer->count; i++) {
    unsigned slot = (tail + i) & *ring->sq_mask;
    struct msghdr *message = &writer->messages[i];
    ring->sqes[slot] = (struct io_uring_sqe){.opcode = IORING_OP_SENDMSG, .fd = writer->sockets[i]->fd, .user_data = i,
                                             .addr = (uintptr_t)message, .len = 1, .msg_flags = (unsigned)FLAGS};
    if (message->msg_iovlen == 1) { /* cheaper than a message of one part */
      ring->sqes[slot].opcode = IORING_OP_SEND;
      ring->sqes[slot].addr = (uintptr_t)message->msg_iov->iov_base;
      ring->sqes[slot].len = (unsigned)message->msg_iov->iov_len;
    }
    ring->sq_array[slot] = slot;
    writer->results[i] = -EAGAIN;
  }
  atomic_store_explicit((_Atomic unsigned *)ring->sq_tail, tail + writer->count, memory_order_release);
  while (completed < writer->count) {
    /* It waits for completions only where all is submitted and something is unfinished, which no kernel has been seen to do. */
    unsigned left = writer->count - submitted, wanted = left ? 0 : writer->count - completed;
    long took = syscall(__NR_io_uring_enter, ring->fd, left, wanted, wanted ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
    if (took > 0) submitted += (unsigned)took;
    completed += reap(writer);
    if (took > 0 || !left || completed < submitted || (took < 0 && errno == EINTR)) continue;
    close_ring(writer);
    send_by_loop(writer, submitted);
    return;
  }
}
#else
static void close_ring(Writer *writer) { writer->by_ring = 0; }
static int open_ring(Writer *writer) { (void)writer; return ENOSYS; }
static void send_by_ring(Writer *writer) { send_by_loop(writer, 0); }
#endif

/* ---- One batch: queue for each socket, send in rounds, and settle what each socket took. ---- */

static void enqueue(Batch *batch, Member *member, Socket **touched) {
  Socket *socket = member->socket;
  long long size = batch->body_size;
  member->sent = 0;
  if (socket->fd < 0 || !socket->open || !member->open ||
      (member->stream && (size > FRAME || size > member->window || size > socket->window))) {
    append(&batch->untaken, member);
    return;
  }
  if (member->stream) { member->window -= size; socket->window -= size; }
  member->next = NULL;
  if (socket->first) socket->last->next = member; else { socket->first = member; socket->next = *touched; *touched = socket; }
  socket->last = member;
}

/* The first `taken` bytes of what was queued for a socket are sent; less than 0 is an error, and nothing is. */
static void settle(Batch *batch, Socket *socket, Py_ssize_t taken) {
  Member *member = socket->first;
  socket->first = socket->last = NULL;
  while (member) {
    Member *next = member->next;
    Py_ssize_t size = member->stream ? HEAD + batch->body_size : batch->chunked_size;
    if (taken >= size) {
      taken -= size;
      if (member->stream) socket->frames++;
    } else if (taken > 0) { /* its windows stay as they are: Python sends the rest */
      if (member->stream) socket->frames++;
      socket->open = 0;
      member->sent = taken;
      taken = 0;
      append(&batch->partial, member);
    } else {
      if (member->stream) { member->window += batch->body_size; socket->window += batch->body_size; }
      append(&batch->untaken, member);
    }
    member = next;
  }
}

static void flush_round(Writer *writer, Batch *batch) {
  if (writer->by_ring && writer->count > 1) send_by_ring(writer); else send_by_loop(writer, 0);
  for (unsigned i = 0; i < writer->count; i++) settle(batch, writer->sockets[i], writer->results[i]);
  writer->count = writer->used = 0;
}

/* Adds the message for one socket to the round: all of its members, as far as a message may have parts. */
static void prepare(Writer *writer, Batch *batch, Socket *socket) {
  unsigned parts = 0;
  for (Member *member = socket->first; member; member = member->next) parts += member->stream ? 2 : 1;
  if (parts > MESSAGE) { settle(batch, socket, 0); return; }
  if (writer->count == ROUND || writer->used + parts > VECTORS) flush_round(writer, batch);
  struct iovec *begin = &writer->vectors[writer->used], *vector = begin;
  for (Member *member = socket->first; member; member = member->next) {
    if (member->stream) {
      unsigned char *head = writer->heads[(vector - writer->vectors) / 2];
      unsigned size = (unsigned)batch->body_size, id = member->stream;
      memcpy(head, (unsigned char[HEAD]){size >> 16, size >> 8, size, 0, 0, id >> 24, id >> 16, id >> 8, id}, HEAD);
      *vector++ = (struct iovec){head, HEAD};
      *vector++ = (struct iovec){(void *)batch->body, (size_t)batch->body_size};
    } else *vector++ = (struct iovec){(void *)batch->chunked, (size_t)batch->chunked_size};
  }
  writer->used += parts;
  writer->messages[writer->count] = (struct msghdr){.msg_iov = begin, .msg_iovlen = parts};
  writer->sockets[writer->count++] = socket;
}

/* Returns [(owner, sent), ...]. Objects are made here, so Python code may run (a collection of garbage) that ends responses:
   the members and owners are held until the end, and `busy` keeps the links between them as they are. */
static PyObject *report(Writer *writer, Batch *batch) {
  Member *lists[] = {batch->partial.first, batch->untaken.first};
  for (int i = 0; i < 2; i++)
    for (Member *member = lists[i]; member; member = member->next) Py_INCREF((PyObject *)member), Py_INCREF(member->owner);
  writer->busy = 1;
  PyObject *result = PyList_New(0);
  for (int i = 0; i < 2; i++)
    for (Member *member = lists[i]; member && result; member = member->next) {
      PyObject *entry = Py_BuildValue("(On)", member->owner, member->sent);
      if (!entry || PyList_Append(result, entry) < 0) Py_CLEAR(result);
      Py_XDECREF(entry);
    }
  for (int i = 0; i < 2; i++)
    for (Member *member = lists[i], *next; member; member = next) {
      next = member->next;
      Py_CLEAR(member->owner);
      Py_DECREF((PyObject *)member);
    }
  writer->busy = 0;
  return result;
}

static PyObject *writer_write(PyObject *self, PyObject *args) {
  Writer *writer = (Writer *)self;
  PyObject *members, *chunked, *body, *key, *value;
  if (!PyArg_ParseTuple(args, "O!SS:write", &PyDict_Type, &members, &chunked, &body)) return NULL;
  if (writer->busy) { PyErr_SetString(PyExc_RuntimeError, "write() is not reentrant"); return NULL; }
  Batch batch = {.chunked = PyBytes_AsString(chunked), .chunked_size = PyBytes_Size(chunked),
                 .body = PyBytes_AsString(body), .body_size = PyBytes_Size(body)};
  for (Py_ssize_t at = 0; PyDict_Next(members, &at, &key, &value);)
    if (Py_TYPE(key) != member_type) { PyErr_SetString(PyExc_TypeError, "the keys must be of type Member"); return NULL; }
  Socket *touched = NULL;
  for (Py_ssize_t at = 0; PyDict_Next(members, &at, &key, &value);) {
    ((Member *)key)->owner = value;
    enqueue(&batch, (Member *)key, &touched);
  }
  for (; touched; touched = touched->next) prepare(writer, &batch, touched);
  flush_round(writer, &batch);
  return report(writer, &batch);
}

/* ---- The types, as Python sees them (_batch.pyi). ---- */

static void *make(PyTypeObject *type) { return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); }

static void dispose(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

static PyObject *socket_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  int fd;
  if (!PyArg_ParseTuple(args, "i:Socket", &fd)) return NULL;
  Socket *socket = make(type);
  if (socket) { socket->fd = fd; socket->open = 1; }
  return (PyObject *)socket;
}

static PyObject *member_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  PyObject *socket;
  unsigned stream;
  if (!PyArg_ParseTuple(args, "O!I:Member", socket_type, &socket, &stream)) return NULL;
  Member *member = make(type);
  if (member) { member->socket = (Socket *)socket; Py_INCREF(socket); member->stream = stream; member->open = 1; }
  return (PyObject *)member;
}

static void member_dealloc(PyObject *self) {
  Py_XDECREF((PyObject *)((Member *)self)->socket);
  dispose(self);
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  int by_ring;
  if (!PyArg_ParseTuple(args, "p:Writer", &by_ring)) return NULL;
  Writer *writer = make(type);
  if (writer) writer->ring.fd = -1;
  if (writer && by_ring && (errno = open_ring(writer))) {
    PyErr_SetFromErrno(PyExc_OSError);
    Py_CLEAR(writer);
  }
  return (PyObject *)writer;
}

static void writer_dealloc(PyObject *self) { close_ring((Writer *)self); dispose(self); }

#define FIELD(type, kind, name, flags) {#name, kind, offsetof(type, name), flags, NULL}
#define END {NULL, 0, 0, 0, NULL}
static PyMemberDef socket_members[] = {FIELD(Socket, T_INT, fd, 0), FIELD(Socket, T_BOOL, open, 0),
                                       FIELD(Socket, T_LONGLONG, window, 0), FIELD(Socket, T_LONGLONG, frames, 0), END};
static PyMemberDef member_members[] = {FIELD(Member, T_BOOL, open, 0), FIELD(Member, T_LONGLONG, window, 0), END};
static PyMemberDef writer_members[] = {FIELD(Writer, T_BOOL, by_ring, READONLY), END};
static PyMethodDef writer_methods[] = {{"write", writer_write, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
#define SLOTS(new, dealloc, members) {Py_tp_new, new}, {Py_tp_dealloc, dealloc}, {Py_tp_members, members}
static PyType_Slot socket_slots[] = {SLOTS(socket_new, dispose, socket_members), {0, NULL}};
static PyType_Slot member_slots[] = {SLOTS(member_new, member_dealloc, member_members), {0, NULL}};
static PyType_Slot writer_slots[] = {SLOTS(writer_new, writer_dealloc, writer_members), {Py_tp_methods, writer_methods}, {0, NULL}};
#define SPEC(type, slots) {"feed.wire.native._batch." #type, sizeof(type), 0, Py_TPFLAGS_DEFAULT, slots}
static PyType_Spec socket_spec = SPEC(Socket, socket_slots), member_spec = SPEC(Member, member_slots);
static PyType_Spec writer_spec = SPEC(Writer, writer_slots);
static struct PyModuleDef module = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "_batch", .m_size = -1};

static PyTypeObject *add_type(PyObject *made, PyType_Spec *spec, const char *name) {
  PyObject *type = PyType_FromSpec(spec);
  if (type && PyModule_AddObjectRef(made, name, type) < 0) Py_CLEAR(type);
  return (PyTypeObject *)type;
}

PyMODINIT_FUNC PyInit__batch(void) {
  PyObject *made = PyModule_Create(&module);
  if (!made || !(socket_type = add_type(made, &socket_spec, "Socket")) ||
      !(member_type = add_type(made, &member_spec, "Member")) || !add_type(made, &writer_spec, "Writer"))
    Py_CLEAR(made);
  return made;
}
