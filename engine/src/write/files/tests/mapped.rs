//! Files of tables with column mapping hold physical names and ids, and so does what the log says of them.

use super::*;
use crate::table::schema::to_delta;

fn nested_schema() -> SchemaRef {
    let inner = Field::new("x", DataType::Int64, true);
    let object = DataType::Struct(vec![inner].into());
    schema(&[
        ("p", DataType::Utf8View),
        ("id", DataType::Int64),
        ("s", object.clone()),
        (
            "l",
            DataType::List(Arc::new(Field::new("element", object, true))),
        ),
    ])
}

fn rows() -> RecordBatch {
    let schema = nested_schema();
    let DataType::Struct(fields) = schema.field(2).data_type() else {
        panic!()
    };
    let object = |from: i64| {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![from, from + 1]));
        StructArray::new(fields.clone(), vec![values], None)
    };
    let DataType::List(element) = schema.field(3).data_type() else {
        panic!()
    };
    let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths([1, 1]);
    let list = ListArray::new(Arc::clone(element), offsets, Arc::new(object(20)), None);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from(vec![Some("a b"), None])),
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(object(10)),
        Arc::new(list),
    ];
    batch(&schema, columns)
}

fn mapped() -> Table {
    let schema = nested_schema();
    let fields = mapping::assign(schema.fields(), &mut 4, &mut |name| format!("col-{name}"));
    let mut table = Table::new(probe(), schema)
        .partitioned_by(&["p"])
        .property(mapping::MODE, "name");
    table.schema_string = to_delta(&Schema::new(fields)).unwrap();
    table
}

#[tokio::test]
async fn files_and_their_adds_speak_of_physical_names() {
    let table = mapped();
    let written = table.write(&[vec![rows()]]).await.unwrap();
    let [first, second] = written.adds.as_slice() else {
        panic!("{written:?}")
    };
    // Partitions come in the order of their keys, null first.
    assert!(first.path.starts_with("col-p=__HIVE_DEFAULT_PARTITION__/"));
    assert!(second.path.starts_with("col-p=a%20b/"), "{}", second.path);
    let value = Some("a b".to_owned());
    assert_eq!(
        second.partition_values,
        BTreeMap::from([("col-p".to_owned(), value)])
    );
    assert_eq!(
        second.stats.as_deref(),
        Some(
            r#"{"numRecords":1,"minValues":{"col-id":1,"col-s":{"col-x":10}},"maxValues":{"col-id":1,"col-s":{"col-x":10}},"nullCount":{"col-id":0,"col-s":{"col-x":0},"col-l":0},"tightBounds":true}"#
        )
    );
    let reader = ParquetRecordBatchReaderBuilder::try_new(table.object(second).await).unwrap();
    let leaves: Vec<String> = reader
        .parquet_schema()
        .columns()
        .iter()
        .map(|column| column.path().string())
        .collect();
    assert_eq!(
        leaves,
        ["col-id", "col-s.col-x", "col-l.list.element.col-x"]
    );
    let ids: Vec<i32> = reader
        .parquet_schema()
        .root_schema()
        .get_fields()
        .iter()
        .map(|field| field.get_basic_info().id())
        .collect();
    assert_eq!(ids, [6, 7, 9]);
    let inner = reader.parquet_schema().column(2);
    assert_eq!(inner.self_type().get_basic_info().id(), 10);
}

#[tokio::test]
async fn properties_speak_of_the_names_of_queries() {
    let table = mapped().property("delta.dataSkippingStatsColumns", "S.x");
    let written = table.write(&[vec![rows()]]).await.unwrap();
    let stats = written.adds[1].stats.as_deref().unwrap();
    assert!(
        stats.contains(r#""minValues":{"col-s":{"col-x":10}}"#),
        "{stats}"
    );
}
