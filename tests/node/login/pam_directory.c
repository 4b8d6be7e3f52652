/* SPDX-License-Identifier: Apache-2.0 */
/* As a module of a directory service does: connects to a server on this node, `port=`, and leaves the socket open. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <security/pam_modules.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int connect_to(int argc, const char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "port=", 5) == 0)
            server.sin_port = htons((unsigned short)atoi(argv[i] + 5));
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) != 0)
        return PAM_SYSTEM_ERR;
    return PAM_SUCCESS;
}

int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void)pamh, (void)flags;
    return connect_to(argc, argv);
}

int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void)pamh, (void)flags;
    return connect_to(argc, argv);
}

int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
