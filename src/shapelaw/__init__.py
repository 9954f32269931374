"""shapelaw: from small training runs to the shape, rate and token count of a large one."""
