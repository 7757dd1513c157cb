"""What every part agrees on: errors, ids, codes, records, events and their Avro codec; no I/O."""
