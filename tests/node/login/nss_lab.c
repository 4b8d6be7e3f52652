/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for nss_slurm, which asks the slurmstepds of the node: it knows nobody. In the programs that are named in
 * /run/lab/nss-hangs (`:sshd:ps:`) it waits, and says so in /run/lab/nss-waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

static ssize_t read_line(const char *path, char *line, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return -1;
    got = read(fd, line, size - 1);
    close(fd);
    line[got > 0 ? got : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return got;
}

static int hangs(char *name, size_t size)
{
    char who[256], wanted[40] = ":";

    if (read_line("/run/lab/nss-hangs", who, sizeof who) <= 0 || read_line("/proc/self/comm", name, size) <= 0)
        return 0;
    return strstr(who, strcat(strcat(wanted, name), ":")) != NULL;
}

static enum nss_status answer(int *error)
{
    char name[32];
    int told = 0, fd;

    while (hangs(name, sizeof name)) {
        fd = told ? -1 : open("/run/lab/nss-waits", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (fd >= 0) {
            told = write(fd, strcat(name, "\n"), strlen(name) + 1) > 0;
            close(fd);
        }
        usleep(20000);
    }
    *error = ENOENT;
    return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_lab_getpwnam_r(const char *name, struct passwd *user, char *buffer, size_t size, int *error)
{
    (void)name, (void)user, (void)buffer, (void)size;
    return answer(error);
}

enum nss_status _nss_lab_getpwuid_r(uid_t uid, struct passwd *user, char *buffer, size_t size, int *error)
{
    (void)uid, (void)user, (void)buffer, (void)size;
    return answer(error);
}

enum nss_status _nss_lab_getgrnam_r(const char *name, struct group *group, char *buffer, size_t size, int *error)
{
    (void)name, (void)group, (void)buffer, (void)size;
    return answer(error);
}

enum nss_status _nss_lab_initgroups_dyn(const char *user, gid_t group, long *start, long *size, gid_t **groups,
                                        long limit, int *error)
{
    (void)user, (void)group, (void)start, (void)size, (void)groups, (void)limit;
    return answer(error);
}
