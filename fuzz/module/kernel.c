/* SPDX-License-Identifier: Apache-2.0 */
/* The clock, the descriptors and the sockets of the world (world.h). */
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

struct world world;

void breach(const char *what)
{
    fprintf(stderr, "breach: %s\n", what);
    abort();
}

uint8_t next_byte(struct input *input)
{
    return input->at < input->size ? input->data[input->at++] : 0;
}

unsigned mishap(unsigned n)
{
    struct input *script = &world.script;
    uint8_t byte;

    if (world.rate == 0 || script->size == 0)
        return 0;
    byte = script->data[script->at++ % script->size]; /* around again, so that a short script goes a long way */
    return byte % world.rate == world.rate - 1 ? 1 + byte / world.rate % (n - 1) : 0;
}

/* A call with this errno, or true if it shall succeed. */
static bool goes_well(const int *errors, unsigned count)
{
    unsigned which = mishap(count + 1);

    if (which == 0)
        return true;
    errno = errors[which - 1];
    if (errno == EINTR && ++world.interruptions > 20)
        return true; /* signals end some time */
    return false;
}

#define GOES_WELL(...) goes_well((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

void call_kernel(void)
{
    /* who asks a thousand times is in a loop until its deadline, and shall be there soon */
    world.now_ns += ++world.kernel_calls < 1000 ? 1000 : NS_PER_S / 100;
    for (size_t i = 0; i < world.child_count; i++)
        if (world.children[i].doomed) {
            world.children[i].doomed = world.children[i].alive = false;
            world.children[i].reaped = true;
        }
}

int open_fd(enum fd_kind kind)
{
    for (int fd = world.low_fds ? 0 : 3; fd < FD_CAP; fd++)
        if (world.fds[fd] == FD_NONE) {
            world.fds[fd] = kind;
            return fd;
        }
    breach("512 descriptors at once");
}

static void require_fd(int fd, const char *what)
{
    require(fd >= 0 && fd < FD_CAP && world.fds[fd] != FD_NONE, what);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time);
int __wrap_close(int fd);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t len);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_socketpair(int domain, int type, int protocol, int *ret_pair);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_getsockopt(int fd, int level, int name, void *ret_value, socklen_t *len);
int __wrap_getpeername(int fd, struct sockaddr *ret_address, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *ret_address, socklen_t *len);
int __wrap_getrlimit(int resource, struct rlimit *ret_limit);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
int __wrap_setns(int fd, int kind);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
    require(clock == CLOCK_MONOTONIC, "a clock that can be set decides");
    world.now_ns += 1000;
    if (mishap(2))
        world.now_ns += (uint64_t)next_byte(&world.script) * NS_PER_S / 20; /* the machine was busy */
    world.last_told_ns = world.now_ns;
    if (!world.started) {
        world.started = true;
        world.deadline_ns = world.now_ns + world.limit_ns;
    }
    *ret_time = (struct timespec){(time_t)(world.now_ns / NS_PER_S), (long)(world.now_ns % NS_PER_S)};
    return 0;
}

int __wrap_close(int fd)
{
    call_kernel();
    if (world.in_child)
        return 0;
    require_fd(fd, "close() of a descriptor that is not the module's");
    world.fds[fd] = FD_NONE;
    return 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
    enum fd_kind kind;
    int high;

    call_kernel();
    require_fd(fd, "fcntl() of a descriptor that is not the module's");
    require(command == F_DUPFD_CLOEXEC, "a duplicate without close-on-exec");
    kind = world.fds[fd];
    if (!GOES_WELL(EMFILE))
        return -1;
    for (high = 3; high < FD_CAP && world.fds[high] != FD_NONE; high++)
        ;
    world.fds[high] = kind;
    return high;
}

int __wrap_open(const char *path, int flags, ...)
{
    call_kernel();
    require(world.in_child, "the host program opens a file");
    require(strcmp(path, "/dev/null") == 0 || ((unsigned)flags & O_CLOEXEC), "a file without close-on-exec");
    return GOES_WELL(ENOENT, EMFILE, EACCES) ? open_fd(FD_FILE) : -1;
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
    (void)data;
    call_kernel();
    require_fd(fd, "write() to a descriptor that is not the module's");
    require(len == 0, "the module writes to a file");
    return GOES_WELL(EINVAL) ? 0 : -1;
}

int __wrap_socket(int domain, int type, int protocol)
{
    call_kernel();
    require(domain == AF_UNIX && type == (SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK) && protocol == 0,
            "a socket that blocks or is inherited");
    return GOES_WELL(EMFILE, ENFILE, ENOBUFS, EAFNOSUPPORT) ? open_fd(FD_SOCKET) : -1;
}

int __wrap_socketpair(int domain, int type, int protocol, int *ret_pair)
{
    call_kernel();
    require(domain == AF_UNIX && type == (SOCK_SEQPACKET | SOCK_CLOEXEC) && protocol == 0, "a pair that is inherited");
    if (!GOES_WELL(EMFILE, ENFILE, ENOMEM))
        return -1;
    ret_pair[0] = open_fd(FD_OUR_END);
    ret_pair[1] = open_fd(FD_HELPERS_END);
    return 0;
}

/* A new peer: whatever an earlier one sent is forgotten. */
static void meet(bool passes_credentials)
{
    world.is_silent = world.is_closed = world.received = false;
    world.passes_credentials = passes_credentials;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    call_kernel();
    require_fd(fd, "connect() of a descriptor that is not the module's");
    require(address->sa_family == AF_UNIX && len > sizeof(sa_family_t), "an address that is not a unix socket's");
    if (!GOES_WELL(ENOENT, ECONNREFUSED, EAGAIN, EACCES, EINTR))
        return -1;
    world.fds[fd] = FD_SERVICE;
    meet(false);
    return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    call_kernel();
    require_fd(fd, "setsockopt() of a descriptor that is not the module's");
    require(world.fds[fd] == FD_OUR_END && level == SOL_SOCKET && name == SO_PASSCRED && len == sizeof(int) &&
                *(const int *)value == 1,
            "an option that is not SO_PASSCRED");
    if (!GOES_WELL(ENOMEM))
        return -1;
    meet(true);
    return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void *ret_value, socklen_t *len)
{
    call_kernel();
    require(level == SOL_SOCKET, "an option of another level");
    if (name == SO_TYPE) {
        *(int *)ret_value = fd % 5 == 4 ? SOCK_DGRAM : SOCK_STREAM;
        return GOES_WELL(EBADF) ? 0 : -1;
    }
    require_fd(fd, "getsockopt() of a descriptor that is not the module's");
    require(name == SO_PEERCRED && world.fds[fd] == FD_SERVICE && *len == sizeof(struct ucred), "no SO_PEERCRED");
    if (!GOES_WELL(ENOTCONN))
        return -1;
    *(struct ucred *)ret_value = (struct ucred){.pid = 77, .uid = world.service_uid, .gid = world.service_uid};
    return 0;
}

/* Descriptors 3, 6, 9, … of the host program are connections. */
static bool is_connection(int fd)
{
    return fd % 3 == 0 && fd > 0 && (unsigned)fd / 3 <= world.connection_count;
}

static int tell_address(int fd, struct sockaddr *ret_address, socklen_t *len)
{
    struct sockaddr_storage address;

    call_kernel();
    require(*len == sizeof(address), "a wrong length for an address");
    if (!is_connection(fd)) {
        errno = ENOTSOCK;
        return -1;
    }
    if (!GOES_WELL(ENOTCONN, ENOBUFS))
        return -1;
    memset(&address, fd * 37, sizeof(address));
    address.ss_family = fd % 2 ? AF_INET : AF_INET6;
    if (mishap(2))
        address.ss_family = AF_UNIX;
    memcpy(ret_address, &address, sizeof(address));
    return 0;
}

int __wrap_getpeername(int fd, struct sockaddr *ret_address, socklen_t *len)
{
    return tell_address(fd, ret_address, len);
}

int __wrap_getsockname(int fd, struct sockaddr *ret_address, socklen_t *len)
{
    return tell_address(fd, ret_address, len);
}

int __wrap_getrlimit(int resource, struct rlimit *ret_limit)
{
    call_kernel();
    require(resource == RLIMIT_NOFILE, "a limit that is not of descriptors");
    ret_limit->rlim_cur = (rlim_t[]){1024, 0, 16, RLIM_INFINITY}[mishap(4)];
    return GOES_WELL(EINVAL) ? 0 : -1;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    call_kernel();
    require(timeout_ms == 0, "the host program's descriptors are waited for");
    if (!GOES_WELL(EINTR, EINVAL, ENOMEM))
        return -1;
    for (nfds_t i = 0; i < count; i++)
        fds[i].revents = is_connection(fds[i].fd) ? 0 : POLLNVAL;
    return 0;
}

static bool child_is_over(void)
{
    return world.child_count > 0 && !world.children[world.child_count - 1].alive;
}

int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    uint64_t wait_ns;
    bool of_child;

    call_kernel();
    require(count == 1 && timeout && !mask, "a wait without a limit");
    require_fd(fds->fd, "a wait for a descriptor that is not the module's");
    of_child = world.fds[fds->fd] == FD_PIDFD;
    wait_ns = (uint64_t)timeout->tv_sec * NS_PER_S + (uint64_t)timeout->tv_nsec;
    require(of_child ? wait_ns <= REAP_NS : world.last_told_ns + wait_ns <= world.deadline_ns,
            "a wait beyond the deadline");
    switch (mishap(5)) {
    case 1: errno = ENOMEM; return -1;
    case 2:
        world.now_ns += wait_ns / 8;
        errno = EINTR;
        if (++world.interruptions <= 20)
            return -1;
        break;
    case 3: /* later, but in time */ world.now_ns += wait_ns / 2; break;
    case 4: /* nothing to read after all */ fds->revents = fds->events; return 1;
    default: break;
    }
    if (of_child ? !child_is_over() : world.is_silent || (fds->events == POLLOUT && mishap(2))) {
        world.now_ns += wait_ns;
        return 0;
    }
    fds->revents = fds->events;
    return 1;
}

static void check_request(const char *packet, size_t len)
{
    size_t count = 0;
    const char *last = packet;

    require(len > 0 && len <= 4096 && packet[len - 1] == '\0', "a request that is no packet");
    require(len > 4 && memcmp(packet, "V=1\0PHASE=", 10) == 0, "a request that does not begin with V and PHASE");
    for (size_t at = 0; at < len; at += strlen(packet + at) + 1, count++) {
        last = packet + at;
        require(strchr(last, '=') != NULL, "a field without =");
    }
    require(count <= 64, "a request of more than 64 fields");
    require(strncmp(last, "DEADLINE=", 9) == 0, "a request whose last field is not DEADLINE");
    require(strtoull(last + 9, NULL, 10) <= world.deadline_ns, "a request that allows more than the deadline");
}

ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
    call_kernel();
    require_fd(fd, "send() to a descriptor that is not the module's");
    require(world.fds[fd] == FD_SERVICE || world.fds[fd] == FD_OUR_END, "send() to nobody");
    require(world.fds[fd] != FD_SERVICE || world.service_uid == 0, "a request to a service that is not root's");
    require(flags == (MSG_NOSIGNAL | MSG_DONTWAIT), "send() that blocks or kills");
    check_request(data, len);
    if (!GOES_WELL(EINTR, EAGAIN, EPIPE, ECONNRESET, ENOBUFS))
        return -1;
    world.sends++;
    return (ssize_t)len;
}

/* The peer's next answer: a byte of traits, one with the number of descriptors, and the packet, up to 0xfe. */
static void take_answer(uid_t *ret_sender)
{
    struct input *packets = &world.packets;
    uint8_t traits = next_byte(packets), fds = next_byte(packets);
    const uint8_t *end;

    *ret_sender = traits & 1 ? 1501 : 0;
    world.is_silent = (traits & 6) == 2;
    world.is_closed = (traits & 6) == 4 || packets->at >= packets->size;
    world.packet_fds = fds % 20;
    end = memchr(packets->data + packets->at, 0xfe, packets->size - packets->at);
    world.packet_len = end ? (size_t)(end - packets->data) - packets->at : packets->size - packets->at;
    if (world.packet_len > PACKET_CAP)
        world.packet_len = PACKET_CAP;
    memcpy(world.packet, packets->data + packets->at, world.packet_len);
    packets->at += world.packet_len + (end != NULL);
}

static void *put_control(char *to, size_t *left, int type, const void *data, size_t len)
{
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(len), .cmsg_level = SOL_SOCKET, .cmsg_type = type};

    memcpy(to, &header, sizeof(header));
    memcpy(to + CMSG_LEN(0), data, len);
    *left -= CMSG_SPACE(len) < *left ? CMSG_SPACE(len) : *left;
    return to + CMSG_SPACE(len);
}

/* As Linux does (net/core/scm: documented in unix(7), cmsg(3)): who sent it first, then the descriptors that fit. */
static void give_control(struct msghdr *message, uid_t sender)
{
    char *to = message->msg_control;
    size_t left = message->msg_controllen, room;
    int fds[20];

    if (world.passes_credentials) {
        struct ucred credentials = {.pid = 78, .uid = sender, .gid = sender};

        to = put_control(to, &left, SCM_CREDENTIALS, &credentials, sizeof(credentials));
    }
    room = left > CMSG_LEN(0) ? (left - CMSG_LEN(0)) / sizeof(int) : 0;
    if (world.packet_fds > room) {
        message->msg_flags |= MSG_CTRUNC;
        world.packet_fds = room;
    }
    for (size_t i = 0; i < world.packet_fds; i++)
        fds[i] = open_fd(FD_NAMESPACE);
    if (world.packet_fds > 0)
        to = put_control(to, &left, SCM_RIGHTS, fds, world.packet_fds * sizeof(int));
    message->msg_controllen = (size_t)(to - (char *)message->msg_control);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    struct iovec *space = message->msg_iov;
    uid_t sender;
    size_t len;

    call_kernel();
    require_fd(fd, "recvmsg() from a descriptor that is not the module's");
    require(flags == (MSG_DONTWAIT | MSG_CMSG_CLOEXEC), "recvmsg() that blocks, or whose descriptors are inherited");
    require(!world.received, "a second packet is read");
    if (!GOES_WELL(EINTR, EAGAIN, ECONNRESET, ENOMEM))
        return -1;
    message->msg_flags = 0;
    take_answer(&sender);
    if (world.is_silent) {
        errno = EAGAIN;
        return -1;
    }
    if (world.is_closed)
        world.packet_len = world.packet_fds = 0;
    give_control(message, sender);
    len = world.packet_len < space->iov_len ? world.packet_len : space->iov_len;
    if (len < world.packet_len)
        message->msg_flags |= MSG_TRUNC;
    memcpy(space->iov_base, world.packet, len);
    world.received = true;
    world.trusted = world.fds[fd] == FD_SERVICE ? world.service_uid == 0 : sender == 0;
    world.whole = len > 0 && !(message->msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    return (ssize_t)len;
}

int __wrap_setns(int fd, int kind)
{
    call_kernel();
    require_fd(fd, "setns() with a descriptor that is not the module's");
    require(world.fds[fd] == FD_NAMESPACE && kind != 0, "setns() without a kind, or with what is no answer's");
    require(world.received && world.trusted && world.whole, "setns() for an answer that is not to be believed");
    if (!GOES_WELL(EINVAL, EPERM, ENOMEM)) {
        world.join_failures++;
        return -1;
    }
    world.joins++;
    return 0;
}
