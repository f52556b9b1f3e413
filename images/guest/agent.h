/* SPDX-License-Identifier: GPL-2.0-only */
/* What the agent's files share: the event sources, the frames, the programs. */
#ifndef SAMEPAGE_AGENT_H
#define SAMEPAGE_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

#define CONTROL_ROOM	1024	/* room that any frame without stream data fits in */
#define DATA_ROOM	(HEADER_SIZE + MAX_DATA + CONTROL_ROOM)

struct task;

/* What epoll hands back: a file of ours, and the program it belongs to. */
struct source {
	int fd;			/* -1 once closed */
	uint32_t events;	/* what epoll watches it for; 0: not registered */
	struct task *task;	/* NULL for the port and the signals */
	enum frame_type type;	/* of the data that it carries */
	long left;		/* bytes still to be read once the program is dead; -1: to the end */
};

/* A program, or a file operation: from its request to its EXIT. */
struct task {
	uint32_t id;
	pid_t pid;
	bool reaped, dead;	/* dead: finished, to be freed after this round */
	int32_t code;
	uint32_t credit;	/* bytes of output that the host will take */
	struct source in, out, err;
	uint8_t *input;		/* WINDOW bytes, while any wait for the program */
	size_t input_at, input_end;
	bool input_ends;
	uint32_t consumed;	/* input credit not yet returned */
	struct task *next;
};

/* agent.c */
extern int kmsg_fd;
void watch(struct source *source, uint32_t events);
void shut(struct source *source);
int set_oom_score(const char *score);
bool read_word(const char *path, char *text, size_t size);	/* a file of sysfs, up to its newline */

/* port.c: bytes from and to the host.  Who sends a frame has seen to the room. */
extern struct source port;
void open_port(const char *given);
void read_port(void);
void flush_port(void);
bool take_turn(void);
bool port_has_output(void);
size_t out_room(void);
uint8_t *frame_payload(size_t room);
void frame_commit(uint32_t id, enum frame_type type, uint32_t length);
void send_frame(uint32_t id, enum frame_type type, const void *payload, uint32_t length);
void send_u32(uint32_t id, enum frame_type type, uint32_t value);
void send_failed(uint32_t id, int32_t err, const char *what);
void take_frames(void);
__attribute__((format(printf, 1, 2), noreturn)) void fatal(const char *format, ...);

/* lockstep.c: the same through shared memory, in turns */
bool open_lockstep(void);
bool in_lockstep(void);
size_t exchange(const void *out, size_t size, void *in, size_t room);

/* requests.c: what the host asks for */
void take_frame(uint32_t id, uint8_t type, uint8_t *payload, uint32_t length);

/* task.c: programs and their streams */
struct task *find_task(uint32_t id);
void start_task(uint32_t id, enum frame_type type, int argc, char **argv, char **env, const char *cwd);
void kill_session(struct task *task, int sig);
void reap_children(void);
void take_input(struct task *task, const uint8_t *data, size_t size);
void end_input(struct task *task);
void forward_input(struct task *task);
void forward_output(struct source *source);
void rewatch(struct task *task);
void rewatch_all(void);
void resume_all(void);
void free_dead(void);
void raise_file_limit(void);

/* files.c: the exit code of a child that carries out one file operation */
int files_main(int argc, char **argv);

#endif
