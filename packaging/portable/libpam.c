/* SPDX-License-Identifier: Apache-2.0
 * What the module needs of libpam, to link against where libpam itself is of another machine: its names and versions.
 * libpam has had them all since 1.1.3 (RHEL 8 has 1.3.1, SLES 15 1.3.0, Debian 11 1.4.0). Never loaded by anybody.
 */
void pam_get_data(void)
{
}
void pam_get_item(void)
{
}
void pam_getenv(void)
{
}
void pam_modutil_getpwnam(void)
{
}
void pam_prompt(void)
{
}
void pam_putenv(void)
{
}
void pam_set_data(void)
{
}
void pam_syslog(void)
{
}
