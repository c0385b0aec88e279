/* JSON from a user or a note of the agent: any text gives a message or an error, and what is read survives the way back. */
#include <stdint.h>
#include <stdlib.h>
#include <jansson.h>

#include "proto/ctl.pb-c.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_way_back(const ProtobufCMessage *message, bool all)
{
	json_t *json = pbjson_from_message(message, all);
	ProtobufCMessage *again = NULL;
	struct err err = {0};

	/* A secret is left out on purpose. */
	if (pbjson_to_message(json, message->descriptor, &again, &err) < 0)
		abort();
	json_t *json_again = pbjson_from_message(again, all);
	if (!json_equal(json, json_again))
		abort();
	json_decref(json_again);
	json_decref(json);
	protobuf_c_message_free_unpacked(again, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, JSON_ALLOW_NUL, NULL);
	ProtobufCMessage *message = NULL;
	struct err err = {0};

	if (json && pbjson_to_message(json, &gantry__ctl_message__descriptor, &message, &err) < 0 && (!err.text[0] || message))
		abort();
	if (message) {
		fuzz_way_back(message, false);
		fuzz_way_back(message, true);
		protobuf_c_message_free_unpacked(message, NULL);
	}
	json_decref(json);
	return 0;
}
