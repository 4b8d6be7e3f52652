/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets: one packet out, one packet in, by one deadline.
 *
 * Rules of this file:
 * 1. No PAM, no logging, no policy. Nothing waits but sa_client_wait(), and that not past the deadline it is given.
 * 2. Nobody is believed but uid 0, as the kernel names it; the bytes of anybody else are not looked at.
 * 3. Exactly one packet is read. Every descriptor that came with it is close-on-exec, counted, and closed here
 *    unless the answer is good.
 * 4. Our own sockets never are descriptors 0 to 2, whatever the caller has closed: they would become its stdout.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

int sa_client_keep_high(int fd)
{
    int high;

    if (fd < 0 || fd > 2)
        return fd;
    high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    (void)close(fd);
    return high;
}

bool sa_client_wait(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = sa_clock_now_ns();
        uint64_t left_ns = deadline_ns - now_ns;
        struct pollfd entry = {.fd = fd, .events = events};
        struct timespec left;
        int ready;

        /* On a busy node we may not have come to our turn until now: an answer that is there already counts. */
        if (now_ns >= deadline_ns)
            return events == POLLIN && poll(&entry, 1, 0) > 0;
        left = (struct timespec){.tv_sec = (time_t)(left_ns / SA_NS_PER_S), .tv_nsec = (long)(left_ns % SA_NS_PER_S)};
        ready = ppoll(&entry, 1, &left, NULL);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

void sa_client_close_fds(struct sa_answer *answer)
{
    while (answer->fd_count > 0)
        (void)close(answer->fds[--answer->fd_count]);
}

/* Takes what came beside the packet. False: more descriptors than there may be (those are closed already). */
static bool take_control(struct msghdr *message, struct sa_answer *answer, uid_t *ret_sender)
{
    bool fits = true;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred sender;

            memcpy(&sender, CMSG_DATA(c), sizeof(sender));
            *ret_sender = sender.uid;
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                int fd;

                memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                if (answer->fd_count < SA_JOIN_MAX) {
                    answer->fds[answer->fd_count++] = fd;
                } else {
                    (void)close(fd);
                    fits = false;
                }
            }
        }
    }
    return fits;
}

static enum sa_outcome receive(int fd, bool check_sender, uint64_t deadline_ns, struct sa_answer *answer)
{
    union {
        char bytes[CMSG_SPACE(SA_JOIN_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    struct iovec space = {.iov_base = answer->packet, .iov_len = sizeof(answer->packet)};
    struct msghdr message = {
        .msg_iov = &space,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    uid_t sender = (uid_t)-1;
    ssize_t len;
    bool fits;

    do {
        if (!sa_client_wait(fd, POLLIN, deadline_ns))
            return SA_OUTCOME_TIMEOUT;
        len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (len < 0 && (errno == EINTR || errno == EAGAIN));
    if (len < 0)
        return SA_OUTCOME_UNREACHABLE;
    /* Even a packet of no bytes, which looks like the end, can bring descriptors. */
    fits = take_control(&message, answer, &sender);
    if (len == 0)
        return SA_OUTCOME_UNREACHABLE;
    if (check_sender && sender != 0)
        return SA_OUTCOME_UNTRUSTED;
    if (!fits || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return SA_OUTCOME_BAD_REPLY;
    return sa_reply_parse(answer->packet, (size_t)len, answer->fd_count, &answer->reply) ? SA_OUTCOME_ANSWERED
                                                                                         : SA_OUTCOME_BAD_REPLY;
}

enum sa_outcome sa_client_exchange(int fd, bool check_sender, const void *packet, size_t packet_len,
                                   uint64_t deadline_ns, struct sa_answer *ret_answer)
{
    enum sa_outcome outcome;

    ret_answer->fd_count = 0;
    /* MSG_NOSIGNAL: the caller may not ignore SIGPIPE, and its handlers are not ours to touch. */
    while (send(fd, packet, packet_len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return SA_OUTCOME_UNREACHABLE;
        if (!sa_client_wait(fd, POLLOUT, deadline_ns))
            return SA_OUTCOME_TIMEOUT;
    }
    outcome = receive(fd, check_sender, deadline_ns, ret_answer);
    if (outcome != SA_OUTCOME_ANSWERED)
        sa_client_close_fds(ret_answer);
    return outcome;
}

enum sa_outcome sa_client_ask_service(const char *path, const void *packet, size_t packet_len, uint64_t deadline_ns,
                                      struct sa_answer *ret_answer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t peer_len = sizeof(peer);
    enum sa_outcome outcome = SA_OUTCOME_UNREACHABLE;
    int fd;

    memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
    /* Non-blocking: connect() to a listener whose backlog is full would wait without a limit of ours. */
    fd = sa_client_keep_high(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0)
        return SA_OUTCOME_UNREACHABLE;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0) {
        /* The credentials are those of whoever called listen(): root, or PID 1 with socket activation. */
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) < 0 || peer.uid != 0)
            outcome = SA_OUTCOME_UNTRUSTED;
        else
            outcome = sa_client_exchange(fd, false, packet, packet_len, deadline_ns, ret_answer);
    }
    (void)close(fd);
    return outcome;
}
