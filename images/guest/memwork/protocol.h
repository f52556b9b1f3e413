/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the host and memwork say to each other; harness/ksm/protocol.py mirrors this file.
 *
 * The host writes requests to the driver's stdin and reads answers from its stdout. Everything is little-endian:
 *
 *	u32 size of payload   u32 worker   u32 op      u32 argument		(request)
 *	u32 size of payload   u32 worker   u32 error   u32 0			(answer; error is an errno or 0)
 *
 * Every request gets one answer; a worker answers in the order in which it was asked. Several requests may be under way
 * to one worker as long as they and their answers are small (QUEUED_BYTES altogether): the driver waits for a worker to
 * take a request, and would wait forever for one that waits for the driver to take an answer.
 * With an error the payload is a text.
 * Addresses, counts and keys are u64 unless a structure below says otherwise.
 */
#ifndef MEMWORK_PROTOCOL_H
#define MEMWORK_PROTOCOL_H

#include <stdint.h>

#define MAX_WORKERS	512
#define DRIVER		0xffffffffu	/* as `worker`: the driver itself */
#define MAX_PAYLOAD	(4u << 20)	/* bytes; longer work is split by the host */
#define QUEUED_BYTES	(32u << 10)
#define PAGE_BYTES	4096u
#define PAGE_WORDS	(PAGE_BYTES / 8)

enum op {
	/* For the driver. `argument` is the new worker's id, its answer (u64 pid) comes from the new worker. */
	OP_SPAWN = 1,
	/* For a worker: fork; as OP_SPAWN, and the child holds what the parent held. */
	OP_FORK,
	/* End; answered once the process is reaped, its memory with it: i32 wait status. */
	OP_EXIT,

	/* s64 number, six arguments; answer: s64 result. */
	OP_SYSCALL,
	/* `argument` 1 or 0: PR_SET_MEMORY_MERGE, but never for memwork's own data and stack. */
	OP_MERGE_ANY,
	/* struct run[]: write the contents. */
	OP_FILL,
	/* struct poke[]: write single words and bytes. */
	OP_POKE,
	/* struct range[]: answer u64 digest[], one a page. */
	OP_DIGEST,
	/* struct range[]: answer struct frame[], one a page. */
	OP_FRAMES,
	/* struct rewrite: go on rewriting between other requests; replaces what was under way. */
	OP_REWRITE,
	/* End the rewriting; answer: u64 pages written since it began. */
	OP_REWRITE_STOP,
	/* u64 address, u64 length: answer the bytes. */
	OP_READ,
	/* `argument` is a NUMA node, struct range[]: move_pages(2), answer s32 status[], one a page. */
	OP_MOVE,
	/* u64 secret: the digests' key, for this worker and the children that it forks from now on. */
	OP_SECRET,
	/* Exec memwork anew in the same process: all that it held is gone. Answer: u64 pid. */
	OP_EXEC,
};

struct header {
	uint32_t size;
	uint32_t worker;
	uint32_t what;		/* op or error */
	uint32_t argument;
};

/* `pages` pages from `address`; page i holds (kind, key + i * step). */
struct run {
	uint64_t address;
	uint64_t key;
	uint64_t step;
	uint32_t kind;
	uint32_t pages;
};

struct poke {
	uint64_t address;
	uint64_t value;		/* the low `size` bytes of it */
	uint64_t size;		/* 1..8 */
};

struct range {
	uint64_t address;
	uint64_t pages;
};

/* As /proc/PID/pagemap and /proc/kpageflags give them. */
struct frame {
	uint64_t pagemap;
	uint64_t flags;		/* 0 where no page is present */
};

/*
 * The n-th write, counted from 0, goes to page n % pages and makes it hold (kind, key + n).
 * `burst` pages are written, then the worker waits for `interval_us` (or for a request) before the next burst.
 */
struct rewrite {
	uint64_t address;
	uint64_t pages;
	uint64_t key;
	uint64_t interval_us;
	uint32_t kind;
	uint32_t burst;
};

#endif
