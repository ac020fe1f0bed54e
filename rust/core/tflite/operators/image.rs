//! Operators on images: pools, resizing, blocks of pixels.

use super::super::import::{Attributes, Builder, Site};
use super::super::schema as s;
use super::product::Window;
use super::{fused, image_shape, positive, uniform};
use crate::error::{Error, Result};
use crate::graph::Node;

/// AVERAGE_POOL_2D (padding does not count) and MAX_POOL_2D.
pub fn pool(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<()> {
    site.op.operands(1..=1)?;
    let o = site.op.options::<s::Pool2DOptions<'_>>()?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let window = Window {
        kernel: [positive("filter_height", o.filter_height())?, positive("filter_width", o.filter_width())?],
        strides: [positive("stride_h", o.stride_h())?, positive("stride_w", o.stride_w())?],
        dilations: [1, 1],
        padding: o.padding(),
    };
    let mut attributes = Node::default();
    window.set(b, x, &mut attributes)?;
    if op_type == "AveragePool" {
        attributes.set_int("count_include_pad", 0);
    }
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let node = b.node(site, op_type, &[Some(x)], &[y]).set_clamp(fused(o.fused_activation_function())?);
    node.attributes = attributes.attributes;
    Ok(())
}

/// RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR to the height and width of operand 1. The nearest pixel is the one at or
/// before the position, and the rounded one (halves go up) where corners are aligned or centres count.
pub fn resize(
    b: &mut Builder<'_, '_>,
    site: Site<'_, '_>,
    mode: &str,
    align_corners: bool,
    half_pixel_centers: bool,
) -> Result<()> {
    site.op.operands(2..=2)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    image_shape(b, x)?;
    let sizes = b.tensor(site.op.input(1)?).integers()?;
    if sizes.len() != 2 {
        return Err(Error::invalid("node_operand", format!("sizes {sizes:?} instead of height and width")));
    }
    let coordinates = match (align_corners, half_pixel_centers) {
        (false, false) => "asymmetric",
        (true, false) => "align_corners",
        (false, true) => "half_pixel",
        (true, true) => {
            return Err(Error::invalid("node_options", "align_corners and half_pixel_centers exclude each other"));
        }
    };
    let nearest = if coordinates == "asymmetric" { "floor" } else { "round_prefer_ceil" };
    let sizes = b.integers("sizes", site, sizes);
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let node = b.node(site, "Resize", &[Some(x), None, None, Some(sizes)], &[y]);
    node.set_ints("axes", vec![2, 3]).set_text("mode", mode);
    node.set_text("coordinate_transformation_mode", coordinates);
    if mode == "nearest" {
        node.set_text("nearest_mode", nearest);
    }
    Ok(())
}

/// SPACE_TO_DEPTH and DEPTH_TO_SPACE: the block is the outer part of the channel.
pub fn blocks(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str, size: i32) -> Result<()> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    image_shape(b, x)?;
    let size = positive("block_size", size)?;
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    b.node(site, op_type, &[Some(x)], &[y]).set_int("blocksize", size as i64);
    Ok(())
}
