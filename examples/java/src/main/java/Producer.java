import java.nio.file.*;
import java.security.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.*;
import java.util.*;
import org.apache.avro.Schema;
import org.apache.avro.generic.*;
import org.apache.avro.message.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;
import org.jose4j.json.JsonUtil;
import org.jose4j.jws.JsonWebSignature;

/** Asks questions and prints how each ended, with nothing of Sluicegate; its settings stand in docs/producing.md. */
public class Producer {
    static final Map<String, String> SET = System.getenv();
    static final String TENANT = SET.get("SG_TENANT"), REQUESTS = TENANT + ".requests", TOKEN = SET.get("SG_TOKEN");

    static String hashed(byte[] data) throws Exception {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(MessageDigest.getInstance("SHA-256").digest(data));
    }

    /** Header `sg-proof`: the service's signature over what it sends, where, when, and for whom. */
    static String proof(byte[] value) throws Exception {
        var claims = new HashMap<String, Object>(Map.of("iss", SET.get("SG_SERVICE"), "key", SET.get("SG_PRINCIPAL"),
            "aud", "urn:sluicegate:" + SET.get("SG_ENV") + ":" + REQUESTS, "bh", hashed(value),
            "iat", Instant.now().getEpochSecond(), "jti", hashed(SecureRandom.getSeed(16))));
        if (TOKEN != null) claims.put("ath", hashed(TOKEN.getBytes()));
        var pem = Files.readString(Path.of(SET.get("SG_KEY_FILE"))).replaceAll("-----.*-----", "");
        var signed = new JsonWebSignature();
        signed.setHeader("typ", "sg-proof+jwt");
        signed.setKeyIdHeaderValue(SET.get("SG_KEY_ID"));
        signed.setAlgorithmHeaderValue("EdDSA");
        signed.setKey(KeyFactory.getInstance("Ed25519").generatePrivate(new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(pem))));
        signed.setPayload(JsonUtil.toJson(claims));
        return signed.getCompactSerialization();
    }

    public static void main(String[] questions) throws Exception {
        var asked = new Schema.Parser().parse(Path.of(SET.get("SG_SCHEMAS"), "RequestSubmitted.v1.avsc").toFile());
        var answered = new Schema.Parser().parse(Path.of(SET.get("SG_SCHEMAS"), "ReleaseMade.v1.avsc").toFile());
        var turn = asked.getField("messages").schema().getElementType();
        var user = new GenericData.EnumSymbol(turn.getField("role").schema(), "user");
        var reader = new BinaryMessageDecoder<GenericRecord>(GenericData.get(), answered);
        Map<String, Object> broker = Map.of("bootstrap.servers", SET.get("SG_BOOTSTRAP"));
        Set<Object> sent = new HashSet<>(), ended = new HashSet<>();
        var parts = new ArrayList<TopicPartition>();
        try (var producer = new KafkaProducer<>(broker, new StringSerializer(), new ByteArraySerializer());
                var consumer = new KafkaConsumer<>(broker, new StringDeserializer(), new ByteArrayDeserializer())) {
            for (var topic : List.of(TENANT + ".replies." + SET.get("SG_REPLIES"), TENANT + ".refusals"))
                consumer.partitionsFor(topic).forEach(each -> parts.add(new TopicPartition(topic, each.partition())));
            consumer.assign(parts); // no group: each reads for itself
            parts.forEach(consumer::position); // ... from where the topics end now
            for (var question : questions) {
                var said = new GenericRecordBuilder(turn).set("role", user).set("content", question).build();
                var request = new GenericRecordBuilder(asked).set("request_id", UUID.randomUUID().toString())
                    .set("model", SET.get("SG_MODEL")).set("purpose", SET.get("SG_PURPOSE")).set("messages", List.of(said));
                var value = new BinaryMessageEncoder<GenericRecord>(GenericData.get(), asked).encode(request.build()).array();
                var record = new ProducerRecord<>(REQUESTS, SET.get("SG_PRINCIPAL"), value);
                record.headers().add("sg-proof", proof(value).getBytes());
                if (TOKEN != null) record.headers().add("sg-token", TOKEN.getBytes());
                var placed = producer.send(record).get();
                sent.addAll(List.of(request.get("request_id"), placed.partition() + " " + placed.offset()));
            }
            for (var until = Instant.now().plusSeconds(60); ended.size() < questions.length && Instant.now().isBefore(until); )
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    var release = JsonUtil.parseJson(reader.decode(record.value()).toString());
                    var place = record.partition() + " " + release.get("request_offset");
                    if (release.get("code").equals("PROOF_REPLAYED")) continue; // the client sent a record of ours twice
                    var text = release.get("text") == null ? release.get("reason") : release.get("text");
                    if ((sent.contains(release.get("request_id")) || sent.contains(place)) && ended.add(release.get("release_id")))
                        System.out.println(release.get("outcome") + " " + release.get("code") + " " + text);
                }
        }
        if (ended.size() < questions.length) throw new IllegalStateException("no release; ask again with the same request_id");
    }
}
