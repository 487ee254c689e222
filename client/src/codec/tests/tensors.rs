//! Tensors, there and back.

use super::*;

fn check_tensor<T: TensorElement + PartialEq + std::fmt::Debug>(shape: &[usize], data: &[T]) {
    for column_major in [false, true] {
        let tensor =
            if column_major { Tensor::column_major(shape, data) } else { Tensor::new(shape, data) }.unwrap();
        let (file, header) = encode(&tensor);
        assert_eq!((header.dtype, usize::from(header.ndim)), (T::DTYPE, shape.len()));
        assert_eq!(header.flags.has(Flags::COLUMN_MAJOR), column_major);
        assert!(header.flags.has(Flags::BUFFER.with(Flags::OUR_ENCODER)));
        if shape.len() <= 4 {
            assert!(shape.iter().zip(header.dims).all(|(len, dim)| *len as u64 == dim));
        }
        for header in [header, without_shortcuts(&header)] {
            let found = decode_tensor(&file, &header, false).unwrap();
            assert_eq!((found.shape(), found.dtype()), (shape, T::DTYPE));
            assert_eq!(found.is_column_major(), column_major);
            assert_eq!(found.as_slice::<T>().unwrap(), data);
            assert_eq!(found.as_tensor(), tensor);
            assert_value_in_place(&found.clone().into_buffer(), &file);
            assert_eq!(encode(&found).0, file);
        }
        seen_by_arrow(&file, Kind::TENSOR);
        assert_in_place(&decode_table(&file, false).unwrap(), &file);
        assert_in_place(&decode_table(&file, true).unwrap(), &file);
    }
}

#[test]
fn tensors_of_every_dimension_come_back_in_place() {
    let data: Vec<f64> = (0..720).map(f64::from).collect();
    for shape in
        [&[][..], &[1], &[720], &[24, 30], &[2, 3, 120], &[2, 3, 4, 30], &[2, 3, 4, 5, 6], &[1, 1, 720]]
    {
        check_tensor(shape, &data[..shape.iter().product()]);
    }
    check_tensor(&[1; 255], &[1.5]);
    assert!(Tensor::new(&[1; 256], &[1.5]).is_err());
}

#[test]
fn tensors_without_elements_come_back_with_their_shape() {
    for shape in
        [&[0][..], &[0, 3], &[3, 0], &[0, 0], &[2, 0, 3], &[usize::MAX, 0, usize::MAX], &[5, 4, 3, 2, 0]]
    {
        check_tensor::<i32>(shape, &[]);
    }
}

#[test]
fn tensors_of_every_element_come_back() {
    check_tensor(&[2, 2], &[i8::MIN, -1, 0, i8::MAX]);
    check_tensor(&[4], &[i16::MIN, -1, 0, i16::MAX]);
    check_tensor(&[4, 1], &[i32::MIN, -1, 0, i32::MAX]);
    check_tensor(&[1, 4], &[i64::MIN, -1, 0, i64::MAX]);
    check_tensor(&[2], &[0_u8, u8::MAX]);
    check_tensor(&[2], &[0_u16, u16::MAX]);
    check_tensor(&[2], &[0_u32, u32::MAX]);
    check_tensor(&[2], &[0_u64, u64::MAX]);
    check_tensor(&[2, 1], &[f16::ONE, f16::NEG_INFINITY]);
    check_tensor(&[2, 1], &[1.5_f32, f32::MAX]);
    check_tensor(&[3], &[true, false, true]);
    check_tensor(&[2, 2], &[true, false, true, true]);
    check_tensor(&[], &[true]);
}

#[test]
fn tensors_have_arrows_own_form_where_it_has_one() {
    let form = |shape: &[usize]| {
        let tensor =
            Tensor::from_bytes(Dtype::BOOL8, shape, false, &[1; 24][..shape.iter().product()]).unwrap();
        let (field, column) = seen_by_arrow(&encode(&tensor).0, Kind::TENSOR);
        let description = field.metadata().get("plasmon.tensor").unwrap().to_string();
        (
            field.extension_type_name().unwrap().to_owned(),
            column.data_type().clone(),
            column.len(),
            description,
        )
    };
    let (name, data_type, rows, description) = form(&[4, 3, 2]);
    assert_eq!((name.as_str(), rows), ("arrow.fixed_shape_tensor", 4));
    assert!(matches!(data_type, DataType::FixedSizeList(_, 6)));
    assert_eq!(description, r#"{"dtype":"bool8","shape":[4,3,2],"order":"C"}"#);
    for (shape, rows) in [(&[24][..], 24), (&[][..], 1), (&[3, 0][..], 0)] {
        let (name, data_type, found, _) = form(shape);
        assert_eq!((name.as_str(), data_type, found), ("arrow.bool8", DataType::Int8, rows));
    }
    assert_eq!(form(&[0, 3]).2, 0);
}

#[test]
fn tensors_of_the_wrong_length_or_type_are_refused() {
    assert!(matches!(Tensor::new(&[2, 2], &[1.0]), Err(CodecError::ShapeMismatch { elements: 1, .. })));
    assert!(Tensor::new(&[usize::MAX, 2], &[1_u8]).is_err());
    assert!(Tensor::from_bytes(Dtype::NONE, &[1], false, &[0]).is_err());
    assert!(Tensor::from_bytes(Dtype::INT16, &[1], false, &[0]).is_err());
    let (file, header) = encode(&Tensor::new(&[2], &[2_u8, 1]).unwrap());
    let view = decode_tensor(&file, &header, false).unwrap();
    let error = view.as_slice::<i8>().unwrap_err().to_string();
    assert!(error.contains("int8") && error.contains("uint8"), "{error}");
    let truth = Header { dtype: Dtype::BOOL8, ..header };
    assert!(matches!(decode_tensor(&file, &truth, false), Err(CodecError::NotBool { index: 0, found: 2 })));
    let view = decode_tensor(&file, &truth, true).unwrap();
    assert!(matches!(view.as_slice::<bool>(), Err(CodecError::NotBool { index: 0, found: 2 })));
    for bad in [
        Header { dims: [u64::MAX, 2, 0, 0], ndim: 2, ..header },
        Header { dims: [1 << 20, 0, 0, 0], ..header },
        Header { buffer_offset: u32::MAX, ..header },
        Header { dtype: Dtype::NONE, ..header },
        Header { dtype: Dtype::from_number(200), ..header },
        Header { ndim: 255, ..header },
    ] {
        let decoded = decode_tensor(&file, &bad, false);
        assert!(decoded.is_err() || bad.ndim > 4, "{bad:?}: {decoded:?}");
    }
    let odd = Header {
        dtype: Dtype::UINT16,
        buffer_offset: header.buffer_offset + 1,
        dims: [1, 0, 0, 0],
        ..header
    };
    let (file, _) = encode(&Tensor::new(&[4], &[2_u8, 1, 2, 3]).unwrap());
    assert!(matches!(decode_tensor(&file, &odd, false), Err(CodecError::Misaligned { needed_bytes: 2, .. })));
}
