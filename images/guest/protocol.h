/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The framed channel between the harness and the agent: one virtio-serial
 * port, org.samepage.channel.  harness/guest/protocol.py mirrors this file;
 * tests/unit/test_protocol.py compares the two.
 *
 * A frame is, little-endian:
 *
 *	u32 length of payload   u32 id   u8 type   payload
 *
 * The host opens an id with a request (EXEC, FILES, PING, MARK, RESUME); every answer
 * carries that id.  An id lasts until EXIT, FAILED, PONG or MARKED.  Frames for
 * an id that is not open are late, not wrong, and are dropped; a frame that
 * breaks the format cannot be recovered from: the agent says FATAL and ends.
 *
 * Flow control: at most WINDOW bytes of output (stdout and stderr together) or
 * of input are on their way per id.  Who consumes them returns the credit.
 */
#ifndef SAMEPAGE_PROTOCOL_H
#define SAMEPAGE_PROTOCOL_H

#include <stdint.h>

#define CHANNEL_NAME		"org.samepage.channel"
#define PROTOCOL_VERSION	2

#define HEADER_SIZE		9
#define MAX_PAYLOAD		65536
#define MAX_DATA		32768	/* bytes of a stream in one frame */
#define WINDOW			262144

enum frame_type {
	/* host to guest */
	FRAME_EXEC = 1,		/* u32 argc, u32 envc, argv, env, cwd: strings ended by NUL */
	FRAME_FILES = 2,	/* as EXEC; argv names a file operation, see files.c */
	FRAME_STDIN = 3,	/* bytes */
	FRAME_STDIN_END = 4,	/* end of file on stdin */
	FRAME_KILL = 5,		/* u32 signal, to the whole session */
	FRAME_CREDIT = 6,	/* u32 bytes of output consumed */
	FRAME_PING = 7,		/* up to 256 bytes, echoed */
	FRAME_MARK = 8,		/* one line for the kernel log, with its newline */
	FRAME_RESUME = 9,	/* u64 CLOCK_REALTIME in ns, 1 to 256 random bytes: see requests.c */

	/* guest to host */
	FRAME_HELLO = 32,	/* id 0: u32 version */
	FRAME_STDOUT = 33,	/* bytes */
	FRAME_STDERR = 34,	/* bytes */
	FRAME_STDIN_CREDIT = 35,/* u32 bytes of input consumed */
	FRAME_EXIT = 36,	/* i32: exit code, or minus the signal's number */
	FRAME_FAILED = 37,	/* i32 errno, text: the request was not carried out */
	FRAME_PONG = 38,	/* u64 CLOCK_MONOTONIC, BOOTTIME, REALTIME in ns; echo */
	FRAME_MARKED = 39,	/* the line is in the kernel log */
	FRAME_FATAL = 40,	/* id 0: text; the agent ends */
};

/*
 * In lockstep the frames go through memory (an ivshmem device's) in place of the port.
 * The guest rings the bell when it has nothing left to do; then it is the host's turn,
 * until it takes a byte out of the gate's connection, which is full otherwise.
 */
#define LOCKSTEP_BELL		0xe9	/* I/O ports: isa-debugcon */
#define LOCKSTEP_GATE		0xea
#define LOCKSTEP_BYTES		2097152
#define LOCKSTEP_ROOM		1044480	/* for bytes from the host */
#define LOCKSTEP_PAUSE_MS	5	/* for programs, before the guest asks again */

struct lockstep {
	uint32_t out_size;	/* bytes from the guest */
	uint32_t in_room;	/* how many it takes now */
	uint32_t in_size;	/* bytes from the host */
	uint8_t unused[4096 - 12];
	uint8_t out[1 << 20];
	uint8_t in[LOCKSTEP_ROOM];
};

#endif
