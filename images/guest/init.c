// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of the guest, twice.
 *
 * As /init of the initramfs it loads the modules that /modules.load names, finds
 * the two disks by serial number (in lockstep as files of its own), brings up the
 * CPUs that were not at boot (docs/guests.md says why), lays a tmpfs over the
 * read-only root, mounts the kernel's modules and goes on as /sbin/init of that root.
 * There it mounts what programs expect, starts the agent and a shell on the
 * serial line, reaps orphans, and powers off on SIGUSR2 (reboots on SIGINT).
 * Called as "poweroff" or "reboot" it sends PID 1 that signal.
 *
 * When something it needs is missing it ends; the kernel panics, QEMU stops
 * (-no-reboot, panic=-1), and the harness shows the last lines of the console.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONSOLE		"/dev/ttyS0"
#define AGENT		"/usr/libexec/samepage-agent"
#define DISK_WAIT_MS	10000
#define KILL_WAIT_MS	2000

__attribute__((format(printf, 1, 2), noreturn))
static void die(const char *format, ...)
{
	char text[512];
	va_list args;
	int err = errno, fd;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fd = open("/dev/kmsg", O_WRONLY);
	dprintf(fd < 0 ? 2 : fd, "<2>samepage-init: %s: %s\n", text, strerror(err));
	exit(1);
}

static void pause_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

static void must_mount(const char *what, const char *where, const char *type, unsigned long flags, const char *data)
{
	mkdir(where, 0755);
	if (mount(what, where, type, flags, data))
		die("mount %s on %s", what, where);
}

/* ---- in the initramfs ---- */

static void load_module(const char *path)
{
	size_t length = strlen(path);
	bool compressed = length > 3 && strcmp(path + length - 3, ".ko");
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("open %s", path);
	/* 4: MODULE_INIT_COMPRESSED_FILE */
	if (syscall(SYS_finit_module, fd, "", compressed ? 4 : 0) && errno != EEXIST)
		die("load %s", path);
	close(fd);
}

static void load_modules(const char *list)
{
	char line[256];
	FILE *file = fopen(list, "re");

	if (!file)
		die("open %s", list);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		if (*line)
			load_module(line);
	}
	fclose(file);
}

/* The device whose virtio-blk serial number is this one. */
static bool find_disk(const char *serial, char *device, size_t size)
{
	char path[300], text[32];
	struct dirent *entry;
	DIR *dir = opendir("/sys/block");
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/block/%s/serial", entry->d_name);

		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

		if (fd >= 0)
			close(fd);
		if (n < 0)
			continue;
		text[n] = 0;
		text[strcspn(text, "\n")] = 0;
		found = !strcmp(text, serial);
		snprintf(device, size, "/dev/%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* A guest in lockstep has no disks: how long one takes, nobody knows. Its initramfs has their content. */
static bool attach_file(const char *serial, char *device, size_t size)
{
	static int number;
	char path[64];
	int file, loop;

	snprintf(path, sizeof(path), "/disks/%s", serial);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	snprintf(device, size, "/dev/loop%d", number++);
	loop = open(device, O_RDONLY | O_CLOEXEC);
	if (loop < 0 || ioctl(loop, LOOP_SET_FD, file))
		die("attach %s to %s", path, device);
	close(loop);
	close(file);
	return true;
}

static void mount_disk(const char *serial, const char *where)
{
	char device[300];

	if (attach_file(serial, device, sizeof(device))) {
		must_mount(device, where, "erofs", MS_RDONLY, "");
		return;
	}
	for (int ms = 0; !find_disk(serial, device, sizeof(device)); ms += 5) {
		if (ms >= DISK_WAIT_MS) {
			errno = ENODEV;
			die("no disk with serial=%s after %d ms", serial, DISK_WAIT_MS);
		}
		pause_ms(5);
	}
	must_mount(device, where, "erofs", MS_RDONLY, "");
}

static void bring_up_cpus(void)
{
	char path[64];
	int fd;

	for (int cpu = 1; ; cpu++) {
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			return;
		if (fd < 0 || write(fd, "1", 1) != 1)
			die("bring up CPU %d", cpu);
		close(fd);
	}
}

/* Gives the initramfs' memory back: everything on its own file system. */
static void delete_tree(int dir_fd, dev_t device)
{
	DIR *dir = fdopendir(dir_fd);
	struct dirent *entry;
	struct stat st;

	while (dir && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || st.st_dev != device)
			continue;
		if (S_ISDIR(st.st_mode)) {
			int fd = openat(dir_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (fd >= 0)
				delete_tree(fd, device);
			unlinkat(dir_fd, entry->d_name, AT_REMOVEDIR);
		} else {
			unlinkat(dir_fd, entry->d_name, 0);
		}
	}
	if (dir)
		closedir(dir);
}

static void mount_move(const char *from, const char *to)
{
	mkdir(to, 0755);
	if (mount(from, to, NULL, MS_MOVE, NULL))
		die("move %s to %s", from, to);
}

static void from_initramfs(void)
{
	char modules[200];
	struct utsname kernel;
	struct stat st;
	int old;

	must_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	must_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	must_mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	load_modules("/modules.load");

	mount_disk("root", "/lower");
	must_mount("rw", "/rw", "tmpfs", 0, "mode=0755");
	mkdir("/rw/upper", 0755);
	mkdir("/rw/work", 0755);
	must_mount("root", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work");
	uname(&kernel);
	snprintf(modules, sizeof(modules), "/root/usr/lib/modules/%s", kernel.release);
	mkdir("/root/usr/lib/modules", 0755);
	mount_disk("modules", modules);
	bring_up_cpus();

	/* The overlay keeps both of its own. */
	umount2("/lower", MNT_DETACH);
	umount2("/rw", MNT_DETACH);
	mount_move("/dev", "/root/dev");
	mount_move("/proc", "/root/proc");
	mount_move("/sys", "/root/sys");

	old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (old < 0 || fstat(old, &st) || chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot("."))
		die("switch to the root");
	delete_tree(old, st.st_dev);
	execl("/sbin/init", "/sbin/init", NULL);
	die("execute /sbin/init");
}

/* ---- in the root ---- */

static void mount_all(void)
{
	must_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
	must_mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	must_mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
	must_mount("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	/* Not every kernel has these; what needs one says so itself. */
	mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	mount("debugfs", "/sys/kernel/debug", "debugfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	mount("tracefs", "/sys/kernel/tracing", "tracefs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
}

static void loopback_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo))
		die("bring lo up");
	close(fd);
}

static void child_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
}

static pid_t start_agent(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	child_signals();
	execl(AGENT, AGENT, NULL);
	die("execute %s", AGENT);
}

/* Silent until somebody presses Enter, so that the log has the line to itself. */
static pid_t start_shell(void)
{
	pid_t pid = fork();
	char enter;
	int fd;

	if (pid)
		return pid;
	child_signals();
	fd = open(CONSOLE, O_RDWR);
	if (fd < 0)
		die("open %s", CONSOLE);
	ioctl(fd, TIOCSCTTY, 1);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
	while (read(0, &enter, 1) != 1)
		pause_ms(1000);
	setenv("TERM", "linux", 0);
	if (chdir("/root"))
		chdir("/");
	execl("/bin/bash", "-bash", NULL);
	execl("/bin/sh", "-sh", NULL);
	die("execute a shell");
}

__attribute__((noreturn))
static void end(int sig)
{
	kill(-1, SIGTERM);
	for (int ms = 0; ms < KILL_WAIT_MS; ms += 10) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0)
			break;
		pause_ms(10);
	}
	kill(-1, SIGKILL);
	sync();
	reboot(sig == SIGINT ? RB_AUTOBOOT : RB_POWER_OFF);
	die("power off");
}

static void from_root(void)
{
	static const struct rlimit files = { 1024, 524288 };
	sigset_t set;
	pid_t agent, shell;

	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	reboot(RB_DISABLE_CAD);		/* Ctrl-Alt-Del comes as SIGINT */
	clearenv();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LANG", "C.UTF-8", 1);
	mount_all();
	loopback_up();
	sethostname("samepage", 8);
	setrlimit(RLIMIT_NOFILE, &files);
	agent = start_agent();
	shell = start_shell();

	for (;;) {
		int sig = sigwaitinfo(&set, NULL);
		pid_t pid;

		if (sig == SIGUSR2 || sig == SIGINT)
			end(sig);
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
			if (pid == agent) {
				pause_ms(100);	/* one that fails at once must not fill the log */
				agent = start_agent();
			} else if (pid == shell) {
				shell = start_shell();
			}
		}
	}
}

int main(int argc, char **argv)
{
	const char *name = argc ? argv[0] : "";
	const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;

	if (getpid() != 1)
		return kill(1, strcmp(base, "reboot") ? SIGUSR2 : SIGINT) ? 1 : 0;
	if (!strcmp(name, "/init"))
		from_initramfs();
	from_root();
}
