// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "roles.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ROLES	8
#define CGROUPS		"/sys/fs/cgroup"

struct role {
	char name[32];
	pid_t pid;
	FILE *to, *from;
	struct place place;
};

static struct role roles[MAX_ROLES];
static unsigned int role_count;

static struct role *role_of(const char *name)
{
	for (unsigned int i = 0; i < role_count; i++)
		if (!strcmp(roles[i].name, name))
			return &roles[i];
	die("nobody is called %s", name);
}

static void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		die("write %s to %s: %s", text, path, strerror(errno));
	close(file);
}

/* The director does this: roles that begin at the same time would get in each other's way. */
static void make_cgroup(const char *cgroup)
{
	char path[256];

	if (access(CGROUPS "/cgroup.controllers", F_OK) && mount("cgroup2", CGROUPS, "cgroup2", 0, ""))
		die("cgroup2: %s", strerror(errno));
	write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	snprintf(path, sizeof(path), CGROUPS "/%s", cgroup);
	if (mkdir(path, 0755) && errno != EEXIST)
		die("%s: %s", path, strerror(errno));
}

static void enter_cgroup(const char *cgroup)
{
	char path[256], pid[16];

	snprintf(path, sizeof(path), CGROUPS "/%s/cgroup.procs", cgroup);
	snprintf(pid, sizeof(pid), "%d", getpid());
	write_file(path, pid);
}

/* Into the cgroup and another user, then another program: its memory is theirs from the first page on. */
_Noreturn static void become(uid_t uid, const char *cgroup, const char *role, const char *cpu)
{
	if (strcmp(cgroup, "-"))
		enter_cgroup(cgroup);
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		die("user %u: %s", uid, strerror(errno));
	execl("/proc/self/exe", "attack", role, cpu, NULL);
	die("attack %s: %s", role, strerror(errno));
}

void start_role(const char *name, uid_t uid, const char *cgroup, const char *role, const char *cpu)
{
	struct role *new = &roles[role_count];
	int to[2], from[2];

	if (role_count == MAX_ROLES || pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		die("role %s: %s", name, strerror(errno));
	if (strcmp(cgroup, "-"))
		make_cgroup(cgroup);
	fflush(stdout);
	new->pid = fork();
	if (new->pid < 0)
		die("role %s: %s", name, strerror(errno));
	if (!new->pid) {
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		become(uid, cgroup, role, cpu);
	}
	close(to[0]);
	close(from[1]);
	snprintf(new->name, sizeof(new->name), "%s", name);
	new->to = fdopen(to[1], "w");
	new->from = fdopen(from[0], "r");
	role_count++;
}

void tell_role(const char *name, const char *line)
{
	struct role *role = role_of(name);

	fprintf(role->to, "%s\n", line);
	fflush(role->to);
}

void await_role(const char *name)
{
	struct role *role = role_of(name);
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, role->from) > 0) {
		if (!strcmp(line, "ok\n")) {
			free(line);
			return;
		}
		if (!strncmp(line, "error ", 6))
			die("%s: %s", name, line + 6);
		if (sscanf(line, "area %" SCNx64 " %" SCNu64, &role->place.address, &role->place.pages) == 2)
			role->place.pid = role->pid;
		else
			printf("%s %s", name, line);
	}
	die("%s ended", name);
}

const struct place *place_of(const char *name)
{
	struct role *role = role_of(name);

	if (!role->place.pages)
		die("%s has no area", name);
	return &role->place;
}

void end_roles(void)
{
	while (role_count) {
		struct role *role = &roles[--role_count];

		kill(role->pid, SIGKILL);
		fclose(role->to);
		fclose(role->from);
		waitpid(role->pid, NULL, 0);
	}
	memset(roles, 0, sizeof(roles));
}
