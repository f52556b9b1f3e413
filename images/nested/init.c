// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of a virtual machine inside of the guest: it holds data whose every page
 * is chosen from outside, reads files, and answers for both on its serial line.
 *
 * One request a line, one answer a line; numbers are decimal or 0x...:
 *
 *	area PAGES			make room for data (once)
 *	fill FIRST COUNT KIND KEY STEP	page FIRST + i holds what (KIND, KEY + i * STEP) stands for
 *	digest FIRST COUNT SECRET	of these pages, in order
 *	read PATH SECRET		digest of a file of the disk, in pages, the last one filled up with zeroes
 *	end				power off
 *
 *	@ready		when it has booted
 *	@ok NUMBER	hexadecimal
 *	@error TEXT
 *
 * harness/ksm/machine.py is the other end.  Contents are those of memwork (content.h).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../guest/memwork/content.h"

#define CONSOLE		"/dev/ttyS0"
#define DISK		"/dev/vda"
#define FILES		"/disk"
#define DISK_WAIT_MS	10000
#define CHUNK_PAGES	64
#define MAX_AREA	(1ul << 24)
#define HUGE_BYTES	(2ul << 20)

static unsigned char *area;
static unsigned long area_pages;

__attribute__((format(printf, 1, 2), noreturn))
static void die(const char *format, ...)
{
	char text[256];
	va_list args;
	int err = errno;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("@error %s: %s\n", text, strerror(err));
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static void must_mount(const char *what, const char *where, const char *type, unsigned long flags)
{
	mkdir(where, 0755);
	if (mount(what, where, type, flags, ""))
		die("mount %s on %s", what, where);
}

static void open_console(void)
{
	struct termios line;
	int fd = open(CONSOLE, O_RDWR | O_NOCTTY);

	if (fd < 0 || tcgetattr(fd, &line))
		_exit(1);
	cfmakeraw(&line);
	tcsetattr(fd, TCSANOW, &line);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void load_modules(const char *list)
{
	char path[256];
	FILE *file = fopen(list, "re");

	if (!file)
		die("open %s", list);
	while (fgets(path, sizeof(path), file)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			die("load %s", path);
		close(fd);
		unlink(path);
	}
	fclose(file);
}

static void mount_disk(void)
{
	const struct timespec pause = { 0, 5 * 1000 * 1000 };

	for (int ms = 0; access(DISK, F_OK); ms += 5) {
		if (ms >= DISK_WAIT_MS)
			die("no disk after %d ms", DISK_WAIT_MS);
		nanosleep(&pause, NULL);
	}
	must_mount(DISK, FILES, "erofs", MS_RDONLY);
}

static void answer(uint64_t value)
{
	printf("@ok %llx\n", (unsigned long long)value);
}

static void refuse(const char *what, int err)
{
	printf("@error %s: %s\n", what, strerror(err));
}

/* Order matters: two pages that have changed places change it. */
static uint64_t add_page(uint64_t sum, const uint64_t *page)
{
	return sum * 0x100000001b3ull + digest_page(page);
}

/* Huge from the first touch: khugepaged, which would move data about for as long as the machine runs, finds nothing to do. */
static void make_area(unsigned long pages)
{
	size_t bytes = pages * PAGE_BYTES;
	uintptr_t start;
	void *room;

	if (area || !pages || pages > MAX_AREA)
		return refuse("area", EINVAL);
	room = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (room == MAP_FAILED)
		return refuse("area", errno);
	start = ((uintptr_t)room + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
	if (madvise((void *)start, bytes, MADV_HUGEPAGE)) {
		refuse("area", errno);
		munmap(room, bytes + HUGE_BYTES);
		return;
	}
	area = (unsigned char *)start;
	area_pages = pages;
	answer(pages);
}

static bool in_area(unsigned long first, unsigned long count)
{
	if (first <= area_pages && count <= area_pages - first)
		return true;
	refuse("no such pages", ERANGE);
	return false;
}

static uint64_t *page_at(unsigned long number)
{
	return (uint64_t *)(area + number * PAGE_BYTES);
}

static void fill(unsigned long first, unsigned long count, unsigned long kind, uint64_t key, uint64_t step)
{
	if (!in_area(first, count))
		return;
	if (kind >= KINDS)
		return refuse("fill", EINVAL);
	for (unsigned long i = 0; i < count; i++)
		fill_page(page_at(first + i), kind, key + i * step);
	answer(count);
}

static void digest(unsigned long first, unsigned long count, uint64_t secret)
{
	uint64_t sum = 0;

	if (!in_area(first, count))
		return;
	set_secret(secret);
	for (unsigned long i = 0; i < count; i++)
		sum = add_page(sum, page_at(first + i));
	answer(sum);
}

/* Fills the buffer, but at the end of the file. */
static ssize_t read_chunk(int fd, char *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, buffer + done, size - done);

		if (n < 0)
			return -1;
		if (!n)
			break;
		done += n;
	}
	return done;
}

static void read_file(const char *path, uint64_t secret)
{
	static uint64_t buffer[CHUNK_PAGES * PAGE_WORDS];
	char *bytes = (char *)buffer;
	char name[512];
	uint64_t sum = 0;
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), FILES "/%s", path);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return refuse(path, errno);
	set_secret(secret);
	while ((n = read_chunk(fd, bytes, sizeof(buffer))) > 0) {
		size_t pages = (n + PAGE_BYTES - 1) / PAGE_BYTES;

		memset(bytes + n, 0, pages * PAGE_BYTES - n);
		for (size_t i = 0; i < pages; i++)
			sum = add_page(sum, buffer + i * PAGE_WORDS);
	}
	close(fd);
	if (n < 0)
		return refuse(path, errno);
	answer(sum);
}

static bool is(const char *word, const char *verb, int have, int want)
{
	return !strcmp(word, verb) && have == want;
}

static void carry_out(char *line)
{
	char *words[8];
	uint64_t numbers[8];
	int count = 0;

	for (char *word = strtok(line, " \r\n"); word && count < 8; word = strtok(NULL, " \r\n")) {
		numbers[count] = strtoull(word, NULL, 0);
		words[count++] = word;
	}
	if (!count)
		return;
	if (is(words[0], "area", count, 2))
		make_area(numbers[1]);
	else if (is(words[0], "fill", count, 6))
		fill(numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]);
	else if (is(words[0], "digest", count, 4))
		digest(numbers[1], numbers[2], numbers[3]);
	else if (is(words[0], "read", count, 3))
		read_file(words[1], numbers[2]);
	else if (is(words[0], "end", count, 1))
		reboot(RB_AUTOBOOT);	/* without ACPI there is no powering off; QEMU ends (-no-reboot) */
	else
		refuse(words[0], EINVAL);
}

int main(void)
{
	char line[1024];

	mkdir("/dev", 0755);
	mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	open_console();
	load_modules("/modules.load");
	mount_disk();
	printf("@ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		carry_out(line);
		fflush(stdout);
	}
	die("the serial line has ended");
}
