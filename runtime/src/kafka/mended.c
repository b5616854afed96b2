/* Mends librdkafka's issue 5280 (open in 2.12.1, the version that the crate rdkafka-sys 4.10 builds).
 *
 * A broker that answers a fetch with "not the leader any more" for several partitions may know the new leader of some and of others not. The
 * library makes room for all of them, fills in those whose leader is known, and then reads the rest, which nobody has written: it crashes, or
 * takes a broker or an epoch from what lay in that memory. Here the room is filled with partitions that do not exist, which the library skips.
 *
 * The linker puts this function in the place of the library's (--wrap); where it was not told to, nothing calls it. The types are the
 * library's own, from rdkafka.h and, for the id, rdkafka_proto.h.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct {
        int64_t most_significant_bits;
        int64_t least_significant_bits;
        char base64str[23];
} topic_id_t;

typedef struct {
        int32_t id;
        int err;
        int32_t leader;
        int replica_cnt;
        int32_t *replicas;
        int isr_cnt;
        int32_t *isrs;
} partition_t;

typedef struct {
        char *topic;
        int partition_cnt;
        partition_t *partitions;
        int err;
} topic_t;

typedef struct {
        int broker_cnt;
        void *brokers;
        int topic_cnt;
        topic_t *topics;
} metadata_t;

/* The library's function; there only where the linker was told to. */
__attribute__((weak)) void __real_rd_kafkap_leader_discovery_set_topic(void *, metadata_t *, int, topic_id_t, char *, int);

void __wrap_rd_kafkap_leader_discovery_set_topic(void *memory, metadata_t *metadata, int topic, topic_id_t id, char *name, int count) {
        __real_rd_kafkap_leader_discovery_set_topic(memory, metadata, topic, id, name, count);
        for (int i = 0; i < count; i++)
                metadata->topics[topic].partitions[i] = (partition_t) { .id = INT32_MAX, .leader = -1 };
}

/* Whether the linker was told to. */
int ergate_is_mended(void) {
        return __real_rd_kafkap_leader_discovery_set_topic != NULL;
}
