// SPDX-License-Identifier: GPL-2.0-only
/*
 * The service: it keeps what clients send it in its memory, all of which may be merged. Into some answers that it
 * prepares it puts its secret (a token, a password hash) right behind what the client chose.
 *
 *	listen PAGES SECRET BYTES	so many places of two pages each; the secret's bytes are drawn from SECRET
 */
#define _GNU_SOURCE
#include "attack.h"
#include "service.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SECRET	64
#define PLACE_PAGES	2

static struct area area;
static uint8_t *secret;
static uint32_t secret_bytes;

static bool carry_out(int client, const struct wish_header *wish)
{
	char *page = page_of(&area, (uint64_t)wish->at * PLACE_PAGES);

	switch (wish->what) {
	case WISH_STORE:
		return read_all(client, page, PAGE_BYTES);
	case WISH_QUOTE:
		if (wish->count > PAGE_BYTES || !read_all(client, page, wish->count))
			return false;
		memcpy(page + wish->count, secret, secret_bytes);
		return true;
	case WISH_WRITE:
		for (uint32_t i = 0; i < wish->count; i++)
			((volatile uint64_t *)page_of(&area, (uint64_t)(wish->at + i) * PLACE_PAGES))[100]++;
		return true;
	}
	return false;
}

_Noreturn static void answer_clients(int listener)
{
	for (;;) {
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC), yes = 1;
		struct wish_header wish;

		if (client < 0)
			die("accept: %s", strerror(errno));
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
		while (read_all(client, &wish, sizeof(wish)) && carry_out(client, &wish) && write_all(client, "+", 1))
			;
		close(client);
	}
}

/* It is at work from now on, and listens to clients alone. */
static void obey(const struct words *words)
{
	uint64_t state;
	int listener;

	if (strcmp(words->at[0], "listen"))
		die("provide does not know %s", words->at[0]);
	secret_bytes = number(words, 3);
	if (secret_bytes > MAX_SECRET)
		die("a secret of %u bytes", secret_bytes);
	area = map_area(number(words, 1) * PLACE_PAGES);
	register_area(&area);
	secret = private_memory(MAX_SECRET);
	state = number(words, 2);
	for (uint32_t i = 0; i < secret_bytes; i++)
		secret[i] = draw(&state) >> 56;
	say_bytes("secret", secret, secret_bytes);
	listener = listen_at(SERVICE_PORT);
	puts("ok");
	fflush(stdout);
	answer_clients(listener);
}

void provide(void)
{
	/* Nobody closes its stdin in time: it goes with the director. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	serve(obey);
}
