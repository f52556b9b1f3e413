// SPDX-License-Identifier: GPL-2.0-only
/*
 *	attack direct			carry out the script on stdin, as root
 *	attack ROLE CPU			what the director starts
 */
#include "attack.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	void (*play)(void);
} roles[] = {
	{ "hold", hold },	/* a victim with contents that are public, some of them */
	{ "probe", probe },	/* times writes and unmaps */
	{ "transmit", transmit },	/* either end of a covert channel */
	{ "provide", provide },	/* a service over the network, with a secret */
	{ "steal", steal },	/* guesses the service's secret */
	{ "remote", ask_remote },	/* a client of the service that times its answers */
};

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "direct"))
		return direct();
	for (size_t i = 0; argc == 3 && i < sizeof(roles) / sizeof(*roles); i++) {
		if (strcmp(argv[1], roles[i].name))
			continue;
		pin_to(atoi(argv[2]));
		roles[i].play();
	}
	fputs("usage: attack direct < SCRIPT\n", stderr);
	return 2;
}
