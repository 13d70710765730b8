/* Faults at the boundary of the native extension, by the linker's --wrap: the next sends take as many bytes as the test says, or
   fail as it says. A plan is a list of numbers, used one for each message: the most bytes that it takes, or a negative errno.
   io_uring follows the same plan: its entries are shortened before the kernel sees them. An entry cannot be made to fail with
   any errno, so for a negative number it gets a descriptor that is not open. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static long plan[65536];
static unsigned planned, used, refusals, at_most;
static struct io_uring_sqe *entries;
static unsigned entry; /* the next one that is submitted */

/* `refuse` calls of io_uring_enter fail; each takes at most `most` entries (0: as many as there are). */
__attribute__((visibility("default"))) void set_plan(const long *numbers, unsigned count, unsigned refuse, unsigned most) {
  for (planned = 0; planned < count && planned < 65536; planned++) plan[planned] = numbers[planned];
  used = 0;
  refusals = refuse;
  at_most = most;
}

static long next_number(void) { return used < planned ? plan[used++] : 1L << 40; }

ssize_t __real_send(int, const void *, size_t, int);
ssize_t __real_sendmsg(int, const struct msghdr *, int);
void *__real_mmap64(void *, size_t, int, int, int, off_t);
long __real_syscall(long, long, long, long, long, long, long);

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags) {
  long most = next_number();
  if (most < 0) { errno = (int)-most; return -1; }
  return __real_send(fd, data, (size_t)most < size ? (size_t)most : size, flags);
}

static void shorten(struct msghdr *message, size_t most) {
  for (size_t i = 0; i < message->msg_iovlen; i++) {
    size_t size = message->msg_iov[i].iov_len;
    message->msg_iov[i].iov_len = size < most ? size : most;
    most -= message->msg_iov[i].iov_len;
  }
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
  long most = next_number();
  if (most < 0) { errno = (int)-most; return -1; }
  shorten((struct msghdr *)message, (size_t)most);
  return __real_sendmsg(fd, message, flags);
}

void *__wrap_mmap64(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
  void *found = __real_mmap64(where, size, protection, flags, fd, offset);
  if (fd >= 0 && offset == (off_t)IORING_OFF_SQES) { entries = found; entry = 0; }
  return found;
}

long __wrap_syscall(long number, ...) {
  long given[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) given[i] = va_arg(list, long);
  va_end(list);
  if (number == __NR_io_uring_enter && (unsigned)given[1]) {
    if (refusals) { refusals--; errno = EBUSY; return -1; }
    if (at_most && (unsigned)given[1] > at_most) given[1] = at_most;
    for (unsigned i = 0; i < (unsigned)given[1]; i++, entry++) {
      struct io_uring_sqe *one = &entries[entry % 512];
      long most = next_number();
      if (most < 0) one->fd = 1 << 20;
      else if (one->opcode == IORING_OP_SENDMSG) shorten((struct msghdr *)(uintptr_t)one->addr, (size_t)most);
      else if (most < one->len) one->len = (unsigned)most;
    }
  }
  return __real_syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
